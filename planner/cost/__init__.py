"""The cost model: pure functions from descriptions and a token count to Estimates."""
