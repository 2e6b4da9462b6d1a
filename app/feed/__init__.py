"""Sessions as they change: one change stream for everybody in the process who wants to know."""
