"""A transcript as text for people: pieces first, then Markdown or HTML."""
