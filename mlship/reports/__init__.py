"""Evidence rendered for people: Markdown, a terminal's table, JSON."""
