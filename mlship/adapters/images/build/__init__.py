"""Container images without a container engine, or by one from a generated Dockerfile."""
