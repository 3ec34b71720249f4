"""Answers the messages of a topic: consume, compute, produce and commit as one transaction."""
