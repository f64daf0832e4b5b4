"""Collectives in plain torch over a backend's: INT8 sums, rows moved without a wire, the reference of our kernels."""
