"""The proof that a form answers as the original: probes, what they find, and what is kept of it."""
