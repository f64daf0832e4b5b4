"""What the command lines of planner and runtime share: types of options, and printing. Loads click."""
