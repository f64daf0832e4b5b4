"""What if: sweeps over fields of a deployment, crossovers between strategies, and the questions people ask."""
