"""Stores: model registries."""
