"""A checkpoint with its residual stream rotated, so that no channel of a sum stands out when it is quantised."""
