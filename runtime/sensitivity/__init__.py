"""What quantised sums do to a model's loss: ranks' partial sums in one process, and what wire formats make of them."""
