"""Presets that ship with commplan: models, hardware, calibrations, deployments."""
