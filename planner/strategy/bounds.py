"""Bounds of numbers in descriptions: far outside what exists, and within them no sum or product leaves a float."""

SMALLEST, LARGEST = 1e-12, 1e15
LARGEST_INT = 2**31
MAX_LAYERS = 10_000
MAX_RANKS = 65_536
MAX_TOKENS = 4 * 1024 * 1024
