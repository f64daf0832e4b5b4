"""A plugin for SGLang: commplan's backend gloo has collectives of its own, composed of gloo's in place of kernels."""

from __future__ import annotations

from typing import Any


def register() -> None:
    """Called by SGLang in each of its processes; before the plan is bound."""
    from commplan.runtime.backends import gloo
    from commplan.runtime.kernels.peer_impls import PeerLimits

    class PeersOverGloo(gloo.GlooBackend):
        peer_limits = PeerLimits(("fp32", "bf16", "fp16"), 8, 1)

        def peers(self, group: Any, device: Any, dtype: Any, width: int, room: Any) -> Any:
            from commplan.runtime.collectives.composed import ComposedPeers

            class InPieces(ComposedPeers):
                def push(self, x_TH: Any, half: Any = None, make: Any = None) -> None:
                    """Rows are made in three pieces, as where copy engines send them."""
                    third = -(-x_TH.shape[0] // 3)
                    for first in range(0, x_TH.shape[0], third):
                        make(first, min(first + third, x_TH.shape[0]))

            return InPieces(self, group, width, room)

    gloo.BACKEND = PeersOverGloo
