"""The search: the graph of a forward, its cheapest path, and the token ranges over which it holds."""
