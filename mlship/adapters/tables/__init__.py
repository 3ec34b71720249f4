"""Tables of a lake, as whoever reads their rows or their files opens them: Delta and Iceberg."""
