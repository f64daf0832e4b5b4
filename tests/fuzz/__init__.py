"""Spoiled input files, each through one command that reads its kind: `make fuzz`, or `python -m tests.fuzz --seed N`."""
