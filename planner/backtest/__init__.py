"""Back-tests: what was published, beside what the cost model says of the same deployment."""
