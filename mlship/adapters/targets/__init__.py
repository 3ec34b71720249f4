"""Adapters of the port Target, one package a kind."""
