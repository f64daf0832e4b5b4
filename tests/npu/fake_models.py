"""A transformers model on a fake NPU, sharded for one rank, with an executor in charge of it.

The way is that of runtime.loading, except that there are no weights to read: the outline on the meta device is cut by
the runtime's own styles through transformers, gets storage on the fake NPU, and is taken over.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.distributed import DistributedConfig
from transformers.distributed.tensor_parallel import apply_tensor_parallelism

from commplan.planner.strategy.file import StrategyFile
from commplan.runtime.backends import load_backend
from commplan.runtime.ranks.groups import Groups
from commplan.runtime.transformers import loading
from commplan.runtime.transformers.executor import Executor
from commplan.runtime.transformers.models import adapter_for
from commplan.runtime.transformers.sharding import attention_mesh, register_styles, shard_plan, to_local

from .fake_npu import fake_npu
from .fake_world import tensor_parallel_mesh


def executor_of(config: Any, strategy: StrategyFile, groups: Groups) -> Executor:
    """An executor of the plan over this rank's part of a model, in bfloat16."""
    adapter = adapter_for(strategy.model.architecture)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    register_styles(attention_mesh(groups, "cpu") if groups.parallelism.attn_dp > 1 else None)
    wanted = DistributedConfig(tp_size=groups.tp.size, tp_plan=shard_plan(adapter, model, groups))
    plan, _, _ = model._resolve_parallel_plans(wanted)
    apply_tensor_parallelism(model, tensor_parallel_mesh(groups), plan)
    to_local(model)
    executor = Executor(strategy, groups, load_backend(strategy.hardware.backend))
    with fake_npu():
        model.to_empty(device="npu")
        loading._take_over(model, executor, adapter)
        executor.build()
    return executor
