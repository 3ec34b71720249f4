"""Container images: build them, run them in an engine, push and pull them."""
