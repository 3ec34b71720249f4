"""Observations: logged predictions and their outcomes, in files or in PostgreSQL."""
