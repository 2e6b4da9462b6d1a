"""A benchmark of the store beside its peers, on real servers."""
