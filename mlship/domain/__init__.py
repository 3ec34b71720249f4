"""What is true: values, pure decisions, and the ports. Standard library and msgspec only."""
