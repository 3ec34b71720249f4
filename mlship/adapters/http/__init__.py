"""The one door to HTTP servers."""
