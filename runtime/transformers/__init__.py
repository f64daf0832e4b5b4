"""The executor of Hugging Face models: sharded modules under one generic decoder layer."""
