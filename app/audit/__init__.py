"""Who looked, took, erased and held: records that are only ever added, each bound to the last."""
