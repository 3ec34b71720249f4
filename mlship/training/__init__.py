"""What runs in the training process: the only code that imports pandas, scikit-learn and plots."""
