"""The agent's files on disk: where they are, line by line, archived, and written whole."""
