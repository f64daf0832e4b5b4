"""Does a rule of an executor's file speak of a deployment and a forward mode?"""

from __future__ import annotations

from collections.abc import Iterable

from ..descriptions.setup import Setup
from ..executors.where import Graphs, Where

ALL = 2**63
"""More tokens than any forward has."""


def covers(where: Where, setup: Setup, mode: str, peer_access: bool | None = None) -> bool:
    """True if a rule speaks of this deployment and mode; `peer_access` None: as the machine's file says."""
    hardware, p, model = setup.hardware, setup.parallelism, setup.model
    intra = hardware.links.intra_node
    facts = (
        (where.vendors, hardware.vendor),
        (where.topologies, intra.topology),
        (where.architectures, model.architecture),
        (where.moe_backends, p.moe_backend),
        (where.modes, mode),
        (where.weights, setup.deployment.dtypes.weights),
    )
    truths = (
        (where.peer_access, intra.has_peer_access if peer_access is None else peer_access),
        (where.multicast, bool(intra.multicast)),
        (where.fp8, hardware.compute.fp8_tflops is not None),
        (where.mla, model.is_mla),
        (where.latent, model.latent_width > 0),
        (where.attn_dp, p.attn_dp > 1),
        (where.attn_tp, p.attn_tp > 1),
    )
    return (
        all(accepted is None or fact in accepted for accepted, fact in facts)
        and all(wanted is None or wanted == fact for wanted, fact in truths)
        and model.architecture not in where.not_architectures
    )


def graphs_up_to(rules: Iterable[Graphs], setup: Setup, mode: str) -> int:
    """The most tokens of a forward that is replayed from a graph by some rules: 0 where none is."""
    for rule in rules:
        if covers(rule, setup, mode):
            return ALL if rule.max_tokens is None else rule.max_tokens
    return 0
