"""What runs where a model is served: it needs a bundle and no more of mlship than its values."""
