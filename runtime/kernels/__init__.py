"""Device kernels: one algorithm per file, the kernel above, its wrapper below. Triton is imported there alone."""
