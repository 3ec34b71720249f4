"""The Docker engine: image builds, and containers for tests."""
