"""Container images: built, run in an engine, and moved to and from registries."""
