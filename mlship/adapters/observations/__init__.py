"""Where predictions and outcomes are read back from."""
