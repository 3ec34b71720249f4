"""The one door to HTTP: time limits, proxies, and what is sent again after a failure."""
