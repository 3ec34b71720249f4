"""Forges: pull requests, their comments and reviews, and the summary of a CI job."""
