"""Rows of a batch: the files that have them, processes that score them, and published runs."""
