"""The files in which a model is kept: conversions, and files that training saved itself."""
