"""Evidence rendered as Markdown, as tables in a terminal, or as JSON."""
