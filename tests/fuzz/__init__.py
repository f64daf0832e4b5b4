"""Spoiled input files, each through a command that reads it: `make fuzz`, or `python -m tests.fuzz --seed N`."""
