"""What entries come to: turns, calls, tokens and costs, each counted once."""
