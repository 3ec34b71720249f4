"""The domain: values, pure decisions and ports. Standard library and msgspec only."""
