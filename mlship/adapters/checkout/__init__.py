"""Adapters to the user's repository: what is checked out, and processes that run its code.

Nothing here imports pandas, numpy or scikit-learn; the processes that are started do.
"""
