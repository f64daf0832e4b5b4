"""Measuring a machine: collectives, kernels and GEMMs of given sizes, timed on all ranks in step."""
