"""Calibration of a machine: what a deployment needs measured, and the file that the measurements become."""
