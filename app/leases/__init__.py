"""Leases: who alone may write to a session for a while, of those who ask."""
