"""A session as objects: turns, calls of tools, subagents, tokens. Knows entries, no database."""
