"""A model on loopback that says what it is told to, so that the real agent runs offline."""
