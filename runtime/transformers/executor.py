"""The executor: a sharded model, a strategy file, and the forward mode that the runner sets."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from commplan.planner.strategy.file import StrategyFile, plan_hash

from ..backends import Backend
from ..bound.counts import Counters
from ..bound.peer_pool import PeerPool
from ..bound.program import Program, Programs, build_programs
from ..errors import BoundaryError, RefusedError
from ..kernels.peer_impls import WAITING_IMPLS, check_peer_limits
from ..ranks.agreement import exchange_over, together
from ..ranks.groups import Groups
from .checkpoint_fit import check_runnable, check_same_weights
from .compiled_graphs import Graphs
from .head import no_logits
from .layer import attention_of, layer_forward, picks_by_id, rows_of_mlp
from .norms import check_norms, mark_norms
from .running_forward import RunningForward

_UNPLANNED = ("assistant_model", "prompt_lookup_num_tokens", "prefill_chunk_size")


class Executor:
    """Runs a model under a strategy file.

    The runner says the forward mode: `with executor.forward("prefill"): executor.model(input_ids)`. Token counts are
    read off the input and agreed between the ranks (`agree=False` trusts the caller; attention DP always agrees).
    """

    def __init__(self, strategy: StrategyFile, groups: Groups, backend: Backend, *, agree: bool = True) -> None:
        self.strategy, self.groups, self.backend = strategy, groups, backend
        self.counters = Counters()
        self.model: Any = None
        self.now = RunningForward(groups, backend, strategy.model.hidden_size, agree=agree)
        self.forwards: list[tuple[str, int]] = []
        self._brings_ids = False
        self._modes: Callable[[], str] | None = None
        self._programs = Programs({})
        self._graphs: Graphs | None = None
        self._peers = PeerPool(groups, backend)
        self._weights = torch.empty(0)  # stands for the model's: their device and type

    @property
    def program(self) -> Program:
        """The bound ops of the last forward, or of the one in progress."""
        return self.now.program

    # ---- set-up ----------------------------------------------------------------------------------------------------

    def attach(self, model: nn.Module) -> None:
        """Take over a sharded model: its layers' forwards, its final norm, its outer forward. `build` comes next."""
        self.model = model
        self._weights = next(model.parameters())
        mark_norms(model, self._weights.dtype)
        self._check_strategy(self.strategy)
        for index, layer in enumerate(model.model.layers):  # type: ignore[union-attr, arg-type]
            layer._commplan, layer._commplan_index = self.now, index
            layer.forward = functools.partial(layer_forward, layer)
            self.now.attentions.append(attention_of(layer))
            self.now.mlps.append(rows_of_mlp(layer.mlp, self.now))
            self._brings_ids = self._brings_ids or picks_by_id(layer.mlp)
        inner = model.forward
        model.forward = functools.wraps(inner)(functools.partial(self._outer_forward, inner))

    def _check_strategy(self, strategy: StrategyFile) -> None:
        check_peer_limits(strategy, self.backend.name, self.backend.peer_limits)
        check_norms(self.model, strategy)

    def build(self) -> None:
        """Bind the plan's ops. Every rank calls this: collectives of our own meet their peers here."""
        self._peers.make(self._weights.device, self._weights.dtype, self.strategy)
        element_bytes = self._weights.element_size()
        self._programs = Programs(
            build_programs(self.strategy, self.groups, self.backend, self.counters, element_bytes, self._peers)
        )

    def close(self) -> None:
        """Give back what ranks share; the executor cannot run after that. For a process that loads many models.

        Every rank must call this.
        """
        self._peers.close()
        self.groups.close()

    def switch(self, strategy: StrategyFile) -> None:
        """Execute another plan on the same sharded weights: same model, same parallelism. Counters start anew.

        Every rank must call this, with the same plan.
        """
        with together(exchange_over(self.groups.control)) as values:
            check_runnable(strategy)
            check_same_weights(self.strategy, strategy)
            self._check_strategy(strategy)
            values["plan"] = plan_hash(strategy)
        self._peers.make(self._weights.device, self._weights.dtype, strategy)
        self.strategy, self.counters = strategy, Counters()
        self.forwards.clear()
        if self._graphs is not None:
            self._graphs.forget()
        self.build()

    # ---- what the runner calls -------------------------------------------------------------------------------------

    @contextmanager
    def forward(self, mode: str) -> Iterator[Executor]:
        """Every forward of the model inside runs in this mode."""
        self._programs.check_mode(mode)
        before, self._modes = self._modes, lambda: mode
        try:
            yield self
        finally:
            self._modes = before

    def generate(self, input_ids: Tensor, **kwargs: Any) -> Tensor:
        """transformers' generate(): the first forward is a prefill, all others decode."""
        for name in _UNPLANNED:
            if kwargs.get(name) is not None:
                raise RefusedError("makes forwards whose mode this runner does not know", field=name)
        for mode in ("prefill", "decode"):
            self._programs.check_mode(mode)
        first = iter(("prefill",))
        before, self._modes = self._modes, lambda: next(first, "decode")
        if self.groups.parallelism.attn_dp > 1:
            kwargs.setdefault("synced_gpus", True)  # groups whose requests end first keep taking part
        try:
            out: Tensor = self.model.generate(input_ids, **kwargs)
            self.check_peers()
            return out
        finally:
            self._modes = before

    def generate_batch(self, inputs: list[list[int]], **kwargs: Any) -> Any:
        """transformers' continuous batching: prompts and decode steps share its forwards, so all are `mixed`."""
        self._programs.check_mode("mixed")
        if self.groups.parallelism.attn_dp > 1:
            raise RefusedError(
                "continuous batching schedules one batch for all ranks; use generate()", field="parallelism.attn_dp"
            )
        reason = self._not_paged()
        if reason is not None:
            raise RefusedError(
                f"transformers' paged cache cannot hold {reason}; use generate()", field="continuous batching"
            )
        with self.forward("mixed"):
            out = self.model.generate_batch(inputs, **kwargs)
            self.check_peers()
            return out

    def _not_paged(self) -> str | None:
        """What of this model transformers' paged cache does not hold."""
        kv_heads, ranks = self.model.config.num_key_value_heads, self.groups.parallelism.tp
        if self.now.latents:
            return "MLA latents"
        if any(not hasattr(layer, "self_attn") for layer in self.model.model.layers):
            return "the state of linear attention"
        if self.now.connections:
            return "pooled keys"
        return f"{kv_heads} KV heads over {ranks} ranks" if kv_heads % ranks else None

    def compile(self, **options: Any) -> None:
        """From now on run torch.compile'd graphs: one per (mode, range), made on first use."""
        if self.groups.parallelism.attn_dp > 1:
            raise RefusedError("graphs need row counts that the ranks agree on outside", field="parallelism.attn_dp")
        if not self.model._can_compile_fullgraph:
            raise RefusedError("transformers does not compile this model in one graph", field="compile")
        self._graphs = Graphs(options)

    def check_peers(self) -> None:
        """Raises BoundaryError if a kernel of our own has given up waiting for a rank: what it left is garbage.

        Every forward looks at its start, and generate() when it is done. Call this after the results of a last forward
        have been read: a kernel can fail long after the host has launched it.
        """
        try:
            self._peers.check()
        except BoundaryError as error:
            before = (self._programs.of(*forward) for forward in reversed(self.forwards))
            ran = next((program for program in before if program.boundaries_of(WAITING_IMPLS)), self.program)
            raise BoundaryError(
                f"{error}; what forwards of {ran.mode}, {ran.first} to {ran.last} tokens, gave is not to be used",
                where=" or ".join(ran.boundaries_of(WAITING_IMPLS)),
            ) from error

    # ---- one forward -----------------------------------------------------------------------------------------------

    def _outer_forward(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._modes is None:
            raise RefusedError("set the forward mode first: with executor.forward('prefill'): ...", field="mode")
        mode = self._modes()
        given = args[0] if args else kwargs.get("input_ids")
        embeds = kwargs.get("inputs_embeds")
        self.now.complete_embeds = given is None
        source = given if given is not None else embeds
        if source is None:
            raise RefusedError("a forward needs input_ids or inputs_embeds", field="input_ids")
        batch, seq = source.shape[0], source.shape[1]
        kept = self._kept(kwargs.get("logits_to_keep", 0), seq)
        self.check_peers()
        self._begin(mode, batch, seq, batch * kept)
        if self._brings_ids:
            self.now.bring_ids(given)
        try:
            if self.now.sizes.total == 0:
                return no_logits(self.model, batch, kept, source.device)
            if self.now.sizes.own == 0:
                return self._idle_forward(batch, kept, source.device)
            if self._graphs is not None:
                out = self._graphs.of(self.program, inner)(*args, **kwargs)
                self.program.count_replay(self.groups.parallelism, self.now.sizes)
                return out
            return inner(*args, **kwargs)
        except RuntimeError as error:
            raise BoundaryError(
                f"{type(error).__name__}: {str(error).splitlines()[0][:300] if str(error) else ''}",
                where=self._standing(),
            ) from error

    def _standing(self) -> str:
        """Where this rank is in the forward, for an error."""
        if self._graphs is not None and self.now.place is None:
            return f"graph of {self.program.mode}, {self.program.first} to {self.program.last} tokens"
        return str(self.now.place or "embed_out")

    def _kept(self, logits_to_keep: Any, seq: int) -> int:
        if isinstance(logits_to_keep, Tensor) and self.groups.parallelism.attn_dp == 1:
            return seq  # the model picks them by number (continuous batching), so every row is brought to the head
        if not isinstance(logits_to_keep, int):
            raise RefusedError("a whole number is expected", field="logits_to_keep", value=str(logits_to_keep))
        return min(logits_to_keep, seq) if logits_to_keep else seq

    def _begin(self, mode: str, batch: int, seq: int, logit_rows: int) -> None:
        self.now.begin(self._programs, mode, batch, seq, logit_rows)
        if self.now.sizes.total:
            self.forwards.append((mode, self.now.sizes.total))

    def _idle_forward(self, batch: int, kept: int, device: torch.device) -> Any:
        """A DP group without work takes part in every op with zero rows of its own."""
        self.now.idle = True
        try:
            base = self.model.model
            weight = base.embed_tokens.weight
            stream: Any = weight.new_zeros(batch, 0 if batch else 1, self.now.hidden_size)
            for layer in base.layers:
                stream = layer_forward(layer, stream)
            self.model.lm_head(base.norm(stream))
        finally:
            self.now.idle = False
        return no_logits(self.model, batch, kept, device)
