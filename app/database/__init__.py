"""MongoDB by either driver, which no other room tells apart, and its failures as our errors."""
