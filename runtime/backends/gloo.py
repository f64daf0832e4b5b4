"""gloo: the CPU reference, for any world size."""

from __future__ import annotations

from .base import Backend


class GlooBackend(Backend):
    """torch.distributed over gloo on CPU tensors."""

    name = "gloo"


BACKEND = GlooBackend
