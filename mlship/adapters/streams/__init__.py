"""Streams: processes that answer messages, and what commands do with their topics."""
