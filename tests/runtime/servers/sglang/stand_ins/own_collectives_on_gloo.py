"""A plugin for SGLang: commplan's backend gloo has collectives of its own, composed of gloo's in place of kernels."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

REFERENCE = Path(__file__).parents[3] / "reference_peers.py"  # a server has no tests on its path


def register() -> None:
    """Called by SGLang in each of its processes; before the plan is bound."""
    from commplan.runtime.backends import gloo
    from commplan.runtime.kernels.peer_impls import PeerLimits

    class PeersOverGloo(gloo.GlooBackend):
        peer_limits = PeerLimits(("fp32", "bf16", "fp16"), 8, 1)

        def peers(self, group: Any, device: Any, dtype: Any, width: int, room: Any) -> Any:
            spec = spec_from_file_location("reference_peers", REFERENCE)
            assert spec is not None and spec.loader is not None
            reference = module_from_spec(spec)
            spec.loader.exec_module(reference)

            class InPieces(reference.ReferencePeers):  # type: ignore[name-defined]
                def push(self, x_TH: Any, half: Any = None, make: Any = None) -> None:
                    """Rows are made in three pieces, as where copy engines send them."""
                    third = -(-x_TH.shape[0] // 3)
                    for first in range(0, x_TH.shape[0], third):
                        make(first, min(first + third, x_TH.shape[0]))

            return InPieces(self, group, width, room)

    gloo.BACKEND = PeersOverGloo
