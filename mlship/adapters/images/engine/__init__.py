"""The Docker engine of this machine: builds, and containers that are run for a test."""
