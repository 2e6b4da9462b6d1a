"""What agents may spend: asked before a turn, and told when it is passed."""
