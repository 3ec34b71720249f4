"""Batches: rows of files through the path of HTTP, by columns of Arrow.

Needs pyarrow, which serving does not. Nothing of an engine is here: `partition.py` scores record
batches wherever they come from.
"""
