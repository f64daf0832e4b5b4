"""What a plan is, in words that planner and runtime share. Imports nothing above it, and nothing heavy."""
