"""Scripts that a team runs if it wants what they bring; ``enable_search`` runs the one there is."""
