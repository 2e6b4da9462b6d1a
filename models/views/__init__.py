"""Typed views of what the agent writes; none of them refuses an entry."""
