"""Builds container images: without a Docker engine, or in one from a generated Dockerfile."""
