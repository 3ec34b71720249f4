"""Ledgers: storage of evidence in a directory or in MLflow."""
