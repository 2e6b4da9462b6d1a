"""The dimensions of the benchmark, one module each."""
