"""GitHub: pull requests, their comments and reviews, by its REST API."""
