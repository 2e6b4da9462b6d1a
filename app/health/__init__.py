"""Whether the servers and the database keep what the store promises."""
