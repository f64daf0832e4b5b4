"""Descriptions of model, hardware and deployment: what they hold, and how they are read."""
