"""What quantised sums do to a model's loss: the ranks' partial sums in one process, and what each wire format makes of them."""
