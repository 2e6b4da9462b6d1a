"""One run of the agent on this host: what it sees of the store, and that nothing of it is left."""
