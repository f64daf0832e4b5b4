"""Does a deployment fit its devices? Weights, KV cache, activations and what the server keeps, per rank."""
