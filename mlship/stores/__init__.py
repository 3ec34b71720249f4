"""Stores: the model registries."""
