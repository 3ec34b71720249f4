"""mlship carries a machine-learning model from a commit to production."""

__version__ = "0.1.0"
