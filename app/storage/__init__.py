"""How one session lies in the collections, and the connection to these."""
