"""What tokens cost, by the public list or a team's own: no database, no model, no page."""
