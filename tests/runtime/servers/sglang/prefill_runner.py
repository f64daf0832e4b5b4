"""SGLang's own prefill runner under the plugin's hooks, without a GPU: a graph returns what was captured.

Run as a process of its own, with the stand-ins: python -m tests.runtime.servers.sglang.prefill_runner.
"""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import torch
from sglang.srt.model_executor.runner import prefill_cuda_graph_runner as theirs
from sglang.srt.plugins.hook_registry import HookRegistry, HookType

from commplan.runtime.servers.executed import differences, of_rank
from commplan.runtime.servers.forward import Forwards
from commplan.runtime.servers.sglang.scheduler import SchedulerHooks

from .fakes import FakeGroup, bind_to, strategy

HOOKS: list[SchedulerHooks] = []


class Body(torch.nn.Module):
    """The layers, as a graph captures them."""

    layers = ()

    def forward(self, input_ids: Any, positions: torch.Tensor, forward_batch: Any, input_embeds: Any = None) -> Any:
        forwards, x = HOOKS[0].forwards, torch.ones(len(positions), 4)
        with forwards.embedding():
            forwards.all_reduce(lambda group, x: x, FakeGroup(), x)
        for layer in range(2):
            for boundary in ("attn_out", "mlp_out"):
                forwards.sum(layer, boundary, x)
        return x


class Model(torch.nn.Module):
    """The body and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Body()

    def forward(self, input_ids: Any, positions: torch.Tensor, forward_batch: Any) -> Any:
        return self.model(input_ids, positions, forward_batch)


class Graphs:
    """In place of the backend."""

    def __init__(self) -> None:
        self.captured: dict[Any, Any] = {}

    def replay(self, key: Any, batch: Any) -> Any:
        return self.captured[key]


def runner_of(model: Model) -> Any:
    """Theirs, with what capture and replay of a body look at."""
    runner: Any = object.__new__(theirs.PrefillCudaGraphRunner)
    runner.model_runner = SimpleNamespace(model=model, pp_group=SimpleNamespace(is_first_rank=True))
    runner.layer_model, runner.backend = model.model, Graphs()
    runner.prefill_backend_name, runner.is_dsv41_model = "breakable", False
    runner._is_full_backend = runner.enable_cp_bcg_capture = False
    runner._qwen_bcg_hc_sidechannel = runner._use_draft_input_embeds = False
    runner.buffers = SimpleNamespace(pp_proxy_tensors=None)
    runner.buffer_registry = SimpleNamespace(has_slot=lambda name: False)
    runner._prefill_forward_context = lambda *_, **__: nullcontext()
    return runner


def batch_of(rows: int) -> Any:
    return SimpleNamespace(
        forward_mode=SimpleNamespace(name="EXTEND"),
        input_ids=torch.zeros(rows),
        positions=torch.zeros(rows),
        mrope_positions=None,
        input_embeds=None,
        mm_input_embeds=None,
        global_dp_buffer_len=None,
        global_num_tokens_cpu=None,
        dp_padding_mode=SimpleNamespace(is_max_len=lambda: False),
    )


def main() -> None:
    """Capture two sizes, replay and run eagerly, and compare what was counted with the plan."""
    plan = strategy()
    hooks = SchedulerHooks(plan, "plan.yaml")
    hooks.forwards = Forwards(plan, bind_to(plan))
    HOOKS.append(hooks)
    here = f"{__name__}."
    table = {f"{here}Body.forward": hooks.around_body, f"{here}Model.forward": hooks.around_model}
    for target, hook in table.items():
        HookRegistry.register(target, hook, HookType.AROUND)
    HookRegistry.apply_hooks()
    for name in ("set_dp_buffer_len", "set_is_extend_in_batch"):
        setattr(theirs, name, lambda *_: None)
    model = Model()
    runner = runner_of(model)
    for rows in (32, 16):
        for _ in range(3):
            runner.backend.captured[theirs.ShapeKey(size=rows)] = runner._run_forward(batch_of(rows), rows)
    assert of_rank(hooks.forwards)["forwards"] == []
    with hooks.forwards.serving():
        for raw, rows in ((12, 16), (20, 32), (32, 32)):
            key = theirs.ShapeKey(size=rows)
            hooks.around_prefill_graph(runner._execute_body_capture, batch_of(raw), batch_of(rows), rows, raw, key)
        eager = batch_of(40)
        model.forward(eager.input_ids, eager.positions, eager)
    told = of_rank(hooks.forwards)
    assert {(f["mode"], f["range"]): (f["forwards"], f["rows"]) for f in told["forwards"]} == {
        ("prefill", 0): (1, 16),
        ("prefill", 1): (3, 104),
    }, told
    assert differences(plan, told) == []
    print("captured 16 32, replayed 16 32 32, eager 40: as planned")


if __name__ == "__main__":
    main()
