"""Container images without a container engine, and the registries that keep them."""
