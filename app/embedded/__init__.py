"""A real MongoDB on loopback, which outlives nobody."""
