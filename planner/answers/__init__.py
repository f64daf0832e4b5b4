"""What follows from a plan: its file, its breakdown, and why it is as it is."""
