"""Hooks of a scheduler process: they give the plan the sums of every layer, count what ran, and prove that they work.

SGLang logs a hook that cannot be placed, and goes on. A scheduler under a plan therefore looks for every hook, in the
functions and in the layers of the model that was built, and ends the server where one is missing.
"""

from __future__ import annotations

import logging
import os
import pkgutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor

from commplan.planner.strategy.file import StrategyFile, dump, one_line, plan_hash
from commplan.planner.strategy.vendors import BACKENDS

from ...errors import BoundaryError, RefusedError
from ...kernels.read_ahead import bytes_ahead
from ...ranks.agreement import gather_json
from ..captured_sizes import check_captured, check_within
from ..executed import in_force, of_rank
from ..forward import Forwards
from ..stop import or_stop, tell
from .arguments import check_arguments, check_running, uses_impl
from .attention_dp import AttentionDpHooks
from .binding import Binding, check_custom_all_reduce
from .fused_reads import FinalNorm
from .next_linears import next_linears
from .pushed_rows import PushedRows
from .server_fit import check_model
from .stages import PlannedStages
from .words import DECODE_GRAPHS, MODES, ONE_SHOT, PREFILL_GRAPHS, SEAMS

logger = logging.getLogger(__name__)

_SCHEDULER = "sglang.srt.managers.scheduler.Scheduler"
_PREFILL_GRAPHS = "sglang.srt.model_executor.runner.prefill_cuda_graph_runner.PrefillCudaGraphRunner"
_STREAMER = "sglang.srt.managers.scheduler_components.output_streamer.SchedulerOutputStreamer"

Hook = Callable[..., Any]
_BODIES = ("prefill", "mixed")
"""Modes whose graphs hold the body of a forward (PrefillCudaGraphRunner)."""


class SchedulerHooks:
    """All hooks of a scheduler process for one plan."""

    def __init__(self, file: StrategyFile, path: str) -> None:
        self.file, self.path, self.hash = file, path, plan_hash(file)
        self.forwards = Forwards(file, self._bind)
        self.binding: Binding | None = None
        self.attention_dp = AttentionDpHooks(file, self.forwards) if file.parallelism.attn_dp > 1 else None
        self.stages = PlannedStages(file, self.forwards)
        self.pushed_rows = PushedRows(file, self.forwards)

    def table(self) -> dict[str, Hook]:
        """Dotted path of a function of SGLang's -> the hook around it."""
        seam = SEAMS[self.file.model.architecture]
        own = {f"{seam.layer}.stage_facts": self.around_stages, **self.stages.table(), **self.pushed_rows.table()}
        return {
            **(own if self.attention_dp is None else self.attention_dp.table()),
            f"{_SCHEDULER}.__init__": self.around_scheduler,
            f"{_SCHEDULER}.get_init_info": self.around_init_info,
            f"{_SCHEDULER}.get_internal_state": self.around_internal_state,
            f"{_STREAMER}.stream_output": self.around_output,
            "sglang.srt.model_executor.model_runner.ModelRunner.load_model": self.around_load,
            "sglang.srt.layers.layer_boundary.residual.batch.final_norm": self.around_final_norm,
            "sglang.srt.model_executor.model_runner.ModelRunner.forward": self.around_runner,
            f"{_PREFILL_GRAPHS}.execute": self.around_prefill_graph,
            f"{seam.model}.forward": self.around_model,
            f"{seam.body}.forward": self.around_body,
            "sglang.srt.layers.vocab_parallel_embedding.VocabParallelEmbedding.forward": self.around_embedding,
            "sglang.srt.distributed.parallel_state.GroupCoordinator.all_reduce": self.around_all_reduce,
        }

    # ---- the model --------------------------------------------------------------------------------------------------

    def around_stages(self, stage_facts: Hook, *args: Any, **options: Any) -> Any:
        """<DecoderLayer>.stage_facts([cls,] config, layer_id): the stages of a layer, each with the planned sum."""
        stages = stage_facts(*args, **options)
        if options.get("is_nextn"):
            return stages
        layer = options.get("layer_id", args[-1])
        return tuple(self.stages.planned(stage, layer) for stage in stages)

    def around_model(
        self, forward: Hook, model: Any, input_ids: Any, positions: Any, batch: Any, *args: Any, **options: Any
    ) -> Any:
        """<Model>ForCausalLM.forward: tells mode and token count to everything inside."""
        rows = positions.shape[-1]
        if self.attention_dp is not None:
            scope: Any = self.forwards.forward(*self.attention_dp.shape(model, batch, rows))
        else:
            scope = self._scope(batch, rows)
        with scope:
            return forward(model, input_ids, positions, batch, *args, **options)

    def around_body(
        self, forward: Hook, model: Any, input_ids: Any, positions: Any, batch: Any, *args: Any, **options: Any
    ) -> Any:
        """<Model>.forward, the part of the above that a prefill graph captures, by calling it alone."""
        alone = self.forwards.current is None and self.attention_dp is None
        with self._scope(batch, positions.shape[-1]) if alone else nullcontext():
            return forward(model, input_ids, positions, batch, *args, **options)

    def _scope(self, batch: Any, rows: int) -> Any:
        mode = MODES.get(batch.forward_mode.name)
        return nullcontext() if mode is None else self.forwards.forward(mode, rows)

    def around_prefill_graph(self, execute: Hook, *args: Any, **options: Any) -> Any:
        """PrefillCudaGraphRunner.execute: the model's forward, with the replay of a graph in the place of its body.

        Rows are padded to the captured size by then, so that the forward in it tells which graph it was.
        """
        with self.forwards.replaying():
            return execute(*args, **options)

    def around_final_norm(
        self, final_norm: Hook, hidden: Any, batch: Any, norm: Any, *args: Any, **options: Any
    ) -> Any:
        """residual_batch.final_norm: by the last FFN's op, where that does the norm."""
        now = self.forwards.current
        if now is not None and now.owed:
            norm = FinalNorm(self.forwards, self.file.model.num_hidden_layers - 1, norm)
        return final_norm(hidden, batch, norm, *args, **options)

    def around_embedding(self, forward: Hook, *args: Any, **options: Any) -> Any:
        """VocabParallelEmbedding.forward: the all-reduce inside is embed_out."""
        with self.forwards.embedding():
            return forward(*args, **options)

    def around_all_reduce(self, all_reduce: Hook, group: Any, x: Tensor) -> Tensor:
        """GroupCoordinator.all_reduce: embed_out by the planned op; the others are watched."""
        return self.forwards.all_reduce(all_reduce, group, x)

    def around_runner(self, forward: Hook, runner: Any, batch: Any, *args: Any, **options: Any) -> Any:
        """ModelRunner.forward: everything that serves requests, and nothing else, passes here."""
        with self.forwards.serving():
            output = forward(runner, batch, *args, **options)
        mode = MODES.get(batch.forward_mode.name)
        if output.can_run_graph and mode not in _BODIES:
            # The decode runner's, which holds the whole forward; `bs` is its padded size.
            self.forwards.replayed(str(mode), runner.decode_cuda_graph_runner.bs)
        return output

    def around_load(self, load_model: Hook, runner: Any, *args: Any, **options: Any) -> Any:
        """ModelRunner.load_model: what kernels of our own share is taken before the KV cache is given the rest."""
        loaded = load_model(runner, *args, **options)
        or_stop(self.pushed_rows.find, runner)
        if bytes_ahead():
            self.forwards.next_linears = next_linears(runner.model)
        or_stop(self.forwards.bind)
        return loaded

    def _bind(self, counters: Any) -> Any:
        import torch
        from sglang.srt.runtime_context import get_parallel

        parallel = get_parallel()
        if uses_impl(self.file, ONE_SHOT):
            check_custom_all_reduce(parallel.tp_group)
        kind = BACKENDS[self.file.hardware.backend].device_type
        device = torch.device(kind) if kind == "cpu" else torch.device(kind, torch.accelerator.current_device_index())
        self.binding = Binding(self.file, parallel.tp_group, parallel.attn_tp_group, device)
        return self.binding.programs(counters)

    def around_output(self, stream_output: Hook, *args: Any, **options: Any) -> Any:
        """SchedulerOutputStreamer.stream_output: nothing leaves once a kernel has given up waiting for a rank.

        The tokens are on the host by now, and the kernels set their flag before they came. The error goes on, so that
        SGLang has the launcher end all ranks: one whose peer hangs does not end by itself.
        """
        if self.binding is not None:
            try:
                self.binding.peers.check()
            except BoundaryError as error:
                tell(error)
                raise
        return stream_output(*args, **options)

    # ---- the scheduler ----------------------------------------------------------------------------------------------

    def around_scheduler(self, init: Hook, scheduler: Any, server_args: Any, *args: Any, **options: Any) -> None:
        """Scheduler.__init__: check, build, prove, say so."""
        or_stop(check_server, self.file, self.path, server_args)
        or_stop(init, scheduler, server_args, *args, **options)
        or_stop(self._prove, scheduler)
        logger.info(one_line(in_force(self.file, Path(self.path).name, self.hash)))

    def around_init_info(self, get_init_info: Hook, scheduler: Any) -> Any:
        """Scheduler.get_init_info, which the launcher reads: without our key it stops the server."""
        return {**get_init_info(scheduler), "commplan": self.hash}

    def around_internal_state(self, get_internal_state: Hook, scheduler: Any, request: Any) -> Any:
        """Scheduler.get_internal_state: adds the plan and the counts of all ranks, for GET /server_info.

        Every rank gets the request at the same point of its loop, so that a gather is safe here.
        """
        output = get_internal_state(scheduler, request)
        mine = of_rank(self.forwards)
        output.internal_state["commplan"] = {
            "file": Path(self.path).name,
            "plan": self.hash,
            "strategy": dump(self.file),
            "ranks": _everyone(mine, scheduler.tp_cpu_group),
        }
        return output

    # ---- proof ------------------------------------------------------------------------------------------------------

    def _prove(self, scheduler: Any) -> None:
        """Raises RefusedError unless every hook is in place and all ranks have the same plan."""
        for target, hook in self.table().items():
            if not _carries(pkgutil.resolve_name(target), hook):
                raise RefusedError("a hook of commplan is not in place; another plugin?", field=target)
        runner = scheduler.tp_worker.model_runner
        layers = runner.model.model.layers
        if len(layers) != self.file.model.num_hidden_layers:
            raise RefusedError(
                f"the plan is for {self.file.model.num_hidden_layers} layers", field="layers", value=len(layers)
            )
        for index, layer in enumerate(layers):
            self._prove_layer(index, layer)
        check_captured(self.file, _captured_sizes(runner, "decode_cuda_graph_runner", "capture_bs"), DECODE_GRAPHS)
        prefills = _captured_sizes(runner, "prefill_cuda_graph_runner", "capture_num_tokens")
        check_captured(self.file, prefills, PREFILL_GRAPHS)
        check_within(self.file, prefills, PREFILL_GRAPHS)
        check_running(self.file, scheduler.max_running_requests)
        self.forwards.bind()
        hashes = _everyone(self.hash, scheduler.tp_cpu_group)
        if len(set(hashes)) > 1:
            listing = ", ".join(f"rank {rank}: {text}" for rank, text in enumerate(hashes))
            raise RefusedError(f"the ranks have different plans: {listing}", field="plan")

    def _prove_layer(self, index: int, layer: Any) -> None:
        if self.attention_dp is not None:
            self.attention_dp.prove(index, layer, _carries)
            return
        for name, boundary in (("attn_boundary", "attn_out"), ("ffn_boundary", "mlp_out")):
            self.stages.prove(index, boundary, getattr(layer, name))


def check_server(file: StrategyFile, path: str, server_args: Any) -> None:
    """Raises RefusedError where the resolved arguments or the model do not fit the plan; the file is named."""
    from sglang.srt.arg_groups.overrides import model_config_of

    try:
        arguments = server_args.resolved_dict()
        model = model_config_of(server_args)
        check_model(file, model.hf_config.to_dict(), str(model.dtype), str(arguments["model_path"]))
        if not arguments.get("context_length"):
            arguments["context_length"] = model.context_len
        check_arguments(file, arguments, os.environ)
    except RefusedError as error:
        raise error.in_file(path) from None


def _captured_sizes(runner: Any, graphs: str, sizes: str) -> list[int]:
    return list(getattr(getattr(runner, graphs, None), sizes, None) or [])


def _everyone(mine: Any, group: Any) -> list[Any]:
    return gather_json(mine, group, dist.get_world_size(group))


def _carries(function: Any, hook: Hook) -> bool:
    """True if a hook is among the wrappers around a function."""
    while function is not None:
        cells = getattr(function, "__closure__", None) or ()
        if any(cell.cell_contents == hook for cell in cells):
            return True
        function = getattr(function, "__wrapped__", None)
    return False


__all__ = ["SchedulerHooks", "check_server"]
