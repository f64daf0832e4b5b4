"""What the host needs to launch a forward's kernels, where it launches them one by one.

A device works while the host goes on, so a stretch of a forward takes the longer of the two. On a CPU the host is the
device, and a graph is replayed by one call: there the host costs nothing of its own.
"""

from __future__ import annotations

from ..descriptions.setup import Setup
from ..strategy.layout import ALL_TO_ALL
from ..strategy.vendors import BACKENDS
from ..strategy.words import AttentionKind, LaunchState, MlpKind, Provenance
from .composed import num_calls, num_launches, num_staged
from .covering import ALL, graphs_up_to
from .estimate import weakest
from .terms import Composed, Gemm, Passes, PeerKernel, Term, Unhidden

LayerKind = tuple[AttentionKind, MlpKind]


class HostCosts:
    """Host times in one forward mode of a setup, in us: measured on this machine, else the executor's."""

    def __init__(self, setup: Setup, mode: str) -> None:
        self._executor, self._impls, model = setup.executor, setup.impls, setup.model
        self._host = setup.executor.host
        self.graph_up_to = _graph_up_to(setup, mode)
        self.is_device = BACKENDS[setup.hardware.backend].device_type == "cpu"
        self._has_latents = model.is_mla or bool(model.compress_ratios)
        self._exchanges = setup.parallelism.moe_backend == ALL_TO_ALL and setup.parallelism.tp > 1
        self._backend, self._parallelism = setup.hardware.backend, setup.parallelism
        measured = [u.calibration for u in setup.calibrations if u.calibration.host is not None]
        self._measured = measured[0].host if measured else None
        self.launch_us = self._host.launch_us.value if self._measured is None else self._measured.launch_us
        used = {self._host.launch_us.provenance, *(figure.provenance for figure in self._host.calls.values())}
        self.provenance: Provenance = weakest(used) if not measured else measured[0].provenance

    def state(self, tokens: int) -> LaunchState:
        """How a forward of so many tokens is launched."""
        return "graph" if tokens <= self.graph_up_to else "eager"

    def counts(self, tokens: int) -> bool:
        """False where the host costs nothing of its own."""
        return tokens > self.graph_up_to and not self.is_device

    def call_us(self, impl: str) -> float:
        """One call of an impl: its own figure, else that of its kind, else an ordinary launch."""
        kind = self._impls[impl].kind
        if self._measured is not None and impl in self._measured.calls:
            return self._measured.calls[impl]
        if self._measured is not None and kind == "library" and self._backend in self._measured.calls:
            return self._measured.calls[self._backend]
        figure = self._host.calls.get(impl) or self._host.calls.get(kind)
        return self.launch_us if figure is None else figure.value

    def term_us(self, term: Term) -> float:
        """The launches of a part of an op."""
        work = term.work
        if isinstance(work, Passes):
            return self.launch_us * len(work.kernels)
        if isinstance(work, Gemm):
            return self.launch_us
        if isinstance(work, Composed):
            if self._impls[work.impl].is_through_host:
                return self.launch_us * num_staged(work, self._parallelism.group_size(work.group))
            return self.call_us(work.backend) * num_calls(work)
        if isinstance(work, Unhidden):
            return self.call_us(work.around.impl) * num_launches(work.around, self._executor)
        if isinstance(work, PeerKernel):
            figure = self._host.calls.get("peer_to_peer")
            return self.launch_us if figure is None else figure.value
        return self.call_us(work.impl)

    def layer_us(self, kind: LayerKind) -> float:
        """What a layer launches whatever the plan is."""
        attention, mlp = kind
        launches = self._host.launches
        if attention == "linear_attention":
            count = launches.linear_attention
        else:
            count = launches.latent_attention if self._has_latents else launches.full_attention
        count += launches.moe if mlp == "moe" else launches.dense
        exchanged = 2 * self.call_us(self._backend) if mlp == "moe" and self._exchanges else 0.0
        return self.launch_us * count + exchanged

    @property
    def embed_us(self) -> float:
        """What comes before the first boundary."""
        return self.launch_us * self._host.launches.embed


def _graph_up_to(setup: Setup, mode: str) -> int:
    """The most tokens of a forward that is replayed from a graph: as the deployment says, else as the executor."""
    workload, host = setup.deployment.modes[mode], setup.executor.host
    if workload.graph_up_to is not None:
        return workload.graph_up_to
    launch = workload.launch or host.launch[mode]  # type: ignore[index]
    if launch == "graph":
        return ALL
    return 0 if workload.launch == "eager" else graphs_up_to(host.graphs, setup, mode)
