"""All that changes a session: whole, once and in order."""
