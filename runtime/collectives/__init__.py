"""Ops on rows: each file one concern. `bind` turns an op of the strategy file into something to call."""

from .bound import BoundIn, BoundOut, bind_in, bind_out

__all__ = ["BoundIn", "BoundOut", "bind_in", "bind_out"]
