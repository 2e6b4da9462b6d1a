"""What is done with stored sessions: the store, its write path, codec and schema."""
