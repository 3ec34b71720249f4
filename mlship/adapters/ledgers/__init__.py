"""Ledgers: where evidence is kept."""
