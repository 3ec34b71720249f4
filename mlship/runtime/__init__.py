"""Serves a bundle. Imports only the domain's values and the errors of mlship."""
