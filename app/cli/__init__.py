"""The command line, ``session-store``; nothing else in the package imports it."""
