"""Registries of images: credentials, requests, uploads and pushes."""
