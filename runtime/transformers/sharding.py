"""Sharded loading by transformers' own loader, with styles that only shard: no forward of transformers' is installed.

A style says along which dimension, and over which ranks, a parameter is cut; the loader then reads this rank's slice
alone. After loading the parameters become plain local tensors, and every collective is ours.
"""

from __future__ import annotations

import functools
import re
from copy import copy as copy_of
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.distributed.tensor.placement_types import _StridedShard

from ..ranks.groups import Groups
from .models import Adapter, LinearAttention

_meshes: dict[tuple[int, int, int, str], DeviceMesh] = {}


def attention_mesh(groups: Groups, device_type: str) -> DeviceMesh:
    """The mesh of this rank's DP group; every rank must call this. Made once: DTensor's caches hold its groups."""
    p = groups.parallelism
    key = (id(dist.group.WORLD), p.attn_dp, p.attn_tp, device_type)
    if key not in _meshes:
        mesh = init_device_mesh(device_type, (p.attn_dp, p.attn_tp), mesh_dim_names=("attn_dp", "attn_tp"))
        _meshes[key] = mesh["attn_tp"]
    return _meshes[key]


def register_styles(attention: DeviceMesh | None) -> None:
    """Make the styles known to transformers. `attention` is the mesh over which attention is sharded (None: tp)."""
    from transformers.distributed.tensor_parallel import ALL_PARALLEL_STYLES, TensorParallelLayer

    class ShardOnly(TensorParallelLayer):  # type: ignore[misc]
        """Cuts a parameter along `dim`; `packed`: two halves side by side, each of them cut."""

        def __init__(
            self, dim: int, *, packed: bool = False, mesh: DeviceMesh | None = None, bias: bool = True
        ) -> None:
            self.dim, self.packed, self.mesh, self.bias = dim, packed, mesh, bias

        def install_forward(self, module: nn.Module, mesh: Any, **kwargs: Any) -> nn.Module:  # noqa: ARG002
            return module

        def shard_param(self, module: nn.Module, param: str, mesh: DeviceMesh) -> None:
            meta = module._parameters.get(param)
            target = self.mesh if self.mesh is not None else mesh
            if meta is None or target.size() == 1 or (param == "bias" and not self.bias):
                return
            dim = self.dim if meta.ndim > 1 else 0
            dim = dim % meta.ndim
            placement = _StridedShard(dim=dim, split_factor=2) if self.packed else Shard(dim)
            module._parameters[param] = nn.Parameter(
                distribute_tensor(meta, target, [placement], src_data_rank=None), requires_grad=meta.requires_grad
            )

    class Whole(ShardOnly):
        """Leaves a parameter whole on every rank."""

        def __init__(self) -> None:
            super().__init__(0)

        def shard_param(self, module: nn.Module, param: str, mesh: DeviceMesh) -> None:
            pass

    styles = {
        "commplan_attn_column": ShardOnly(0, mesh=attention),
        "commplan_attn_row": ShardOnly(1, mesh=attention, bias=False),
        "commplan_column": ShardOnly(0),
        "commplan_row": ShardOnly(-1, bias=False),
        "commplan_packed": ShardOnly(-2, packed=True),
        "commplan_column_transposed": ShardOnly(-1),
        "commplan_row_transposed": ShardOnly(-2),
        "commplan_expert": ShardOnly(0),
        "commplan_none": Whole(),
    }
    for name, style in styles.items():
        ALL_PARALLEL_STYLES.register(name, style)


def shard_plan(adapter: Adapter, model: Any, groups: Groups) -> dict[str, str]:
    """transformers' tp_plan for a model (on the meta device): a style for every module that is cut.

    transformers merges it into the model's own plan and refuses names that match nothing, so the model's own rules are
    switched off by name and ours kept where the model has such modules.
    """
    names = {re.sub(r"\.\d+\.", ".*.", name) for name, _ in [*model.named_modules(), *model.named_parameters()]}
    plan = dict.fromkeys(model.tp_plan or {}, "commplan_none")
    styles = _styles(adapter, model.config, groups) | _expert_styles(model, by_expert=groups.parallelism.ep > 1)
    return plan | {name: style for name, style in styles.items() if name in names}


def _expert_styles(model: Any, *, by_expert: bool) -> dict[str, str]:
    """How the experts' weights are cut: expert by expert, or each of them by column and row as it lies in memory."""
    experts = "model.layers.*.mlp.experts."
    if by_expert:
        names = ("gate_up_proj", "gate_up_proj_bias", "down_proj", "down_proj_bias")
        return {experts + name: "commplan_expert" for name in names}
    if not any(getattr(module, "is_transposed", False) for module in model.modules()):
        return {experts + "gate_up_proj": "commplan_packed", experts + "down_proj": "commplan_row"}
    return {
        experts + "gate_up_proj": "commplan_column_transposed",  # gate and up interleaved, so a part has both
        experts + "gate_up_proj_bias": "commplan_column_transposed",
        experts + "down_proj": "commplan_row_transposed",
    }


def _styles(adapter: Adapter, config: Any, groups: Groups) -> dict[str, str]:
    p = groups.parallelism
    plan: dict[str, str] = {}
    attention = "model.layers.*.self_attn."
    for name in adapter.column:
        plan[attention + name] = "commplan_attn_column"
    for name in adapter.kv:
        whole = config.num_key_value_heads % p.attn_tp != 0
        plan[attention + name] = "commplan_none" if whole else "commplan_attn_column"
    for name in adapter.row:
        plan[attention + name] = "commplan_attn_row"
    if adapter.linear is not None:
        linear = "model.layers.*.linear_attn."
        plan |= {linear + name: "commplan_attn_column" for name in adapter.linear.column}
        plan |= {linear + name: "commplan_none" for name in adapter.linear.blocks}
        plan |= {linear + name: "commplan_attn_row" for name in adapter.linear.row}
    mlp = "model.layers.*.mlp."
    for prefix in ("", "shared_experts.", "shared_expert."):
        whole = prefix and p.moe_backend == "all_to_all"
        plan[f"{mlp}{prefix}gate_proj"] = "commplan_none" if whole else "commplan_column"
        plan[f"{mlp}{prefix}up_proj"] = "commplan_none" if whole else "commplan_column"
        plan[f"{mlp}{prefix}down_proj"] = "commplan_none" if whole else "commplan_row"
    return plan


def to_local(model: nn.Module) -> None:
    """DTensor parameters become this rank's plain tensors."""
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if isinstance(parameter, DTensor):
                module._parameters[name] = nn.Parameter(parameter.to_local().contiguous(), requires_grad=False)
            elif parameter is not None:
                parameter.requires_grad_(False)


def cut_kv_heads(
    attention: nn.Module, names: tuple[str, ...], kv_heads: int, rank: int, ranks: int, heads: int
) -> None:
    """Fewer KV heads than ranks: each rank keeps the one head that its query heads read."""
    head_dim: int = attention.head_dim  # type: ignore[assignment]
    mine = rank * kv_heads // ranks
    for name in names:
        projection = attention.get_submodule(name)
        rows = slice(mine * head_dim, (mine + 1) * head_dim)
        for key, parameter in list(projection.named_parameters()):
            setattr(projection, key, nn.Parameter(parameter[rows].clone(), requires_grad=False))
    attention.num_key_value_groups = heads // ranks  # type: ignore[assignment]


def cut_linear_attention(module: nn.Module, linear: LinearAttention, rank: int, ranks: int) -> None:
    """Each block of its weights is cut by head; the module then counts this rank's heads alone."""
    for name, sizes in linear.blocks.items():
        owner = module.get_submodule(name)
        parts = owner.weight.split([getattr(module, size) for size in sizes])  # type: ignore[operator]
        mine = torch.cat([part.chunk(ranks)[rank] for part in parts])
        owner.weight = nn.Parameter(mine, requires_grad=False)
    for count in linear.counts:
        setattr(module, count, getattr(module, count) // ranks)


def count_own_heads(attention: nn.Module, counts: tuple[str, ...], ranks: int) -> None:
    """What its code counts becomes this rank's part; a config that it reads is a copy of its own from then on."""
    for name in counts:
        *path, attribute = name.split(".")
        if path == ["config"]:
            attention.config = copy_of(attention.config)
        owner = functools.reduce(getattr, path, attention)
        setattr(owner, attribute, getattr(owner, attribute) // ranks)


def keep_bias_once(projection: nn.Module, rank: int) -> None:
    """The output is partial, so one rank alone adds the bias."""
    bias = getattr(projection, "bias", None)
    if bias is not None and rank != 0:
        projection.register_parameter("bias", None)


def keep_expert_biases_once(experts: nn.Module, rank: int) -> None:
    """The same for experts that are sliced; their code adds the bias whatever it is."""
    bias = getattr(experts, "down_proj_bias", None)
    if bias is not None and rank != 0:
        bias.zero_()


def vocabulary_slice(vocab_size: int, rank: int, ranks: int) -> tuple[int, int]:
    """[first, last) rows of the vocabulary that a rank holds; the last ranks may hold fewer."""
    share = -(-vocab_size // ranks)
    return min(rank * share, vocab_size), min((rank + 1) * share, vocab_size)


def local_rows(weight: torch.Tensor, first: int, last: int, rows: int) -> nn.Parameter:
    """Rows [first, last) of a weight, padded with zeros to `rows`."""
    part = weight.new_zeros(rows, weight.shape[1])
    part[: last - first] = weight[first:last]
    return nn.Parameter(part, requires_grad=False)
