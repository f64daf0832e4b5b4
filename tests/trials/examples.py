"""A made-up example of every kind of thing that CONTRIBUTING says how to add, but for the wire format."""

from __future__ import annotations

import json

from .trial import Insert, Trial

# ---- strategy --------------------------------------------------------------------------------------------------------

STRATEGY = Trial(
    "Strategy",
    {
        "planner/strategies/two_step.py": '''"""Every sum as a reduce-scatter and an all-gather."""

from ..strategy.ops import NONE, Op
from . import Strategy, offers

_SUM = Op("reduce_scatter_all_gather")

STRATEGY = Strategy(
    name="two_step",
    summary="reduce-scatter and all-gather, one behind the other",
    colour="#7a3fb0",
    offers=offers(
        embed_out=(NONE, Op("all_reduce")),
        attn_in=(NONE,),
        attn_out=(_SUM,),
        mlp_in=(NONE,),
        mlp_out=(_SUM,),
        head_in=(NONE,),
    ),
)
'''
    },
    {"name": "two_step"},
)

# ---- op --------------------------------------------------------------------------------------------------------------

OP = Trial(
    "Op",
    {
        "planner/strategy/op_kinds.py": (
            Insert(
                'kernel=OwnKernel("int8_all_reduce", argument="algorithm", norm=True),\n)\n',
                'RIPPLE = quantized_all_reduce("ripple", INT8, _INT8_ERRORS, colour="#5b8c2a", summary="a sum")\n',
            ),
            Insert("\n_KINDS = (\n", "    RIPPLE,\n"),
        ),
        "planner/strategies/ripple.py": '''"""Sums after attention and MLP as ripples."""

from ..strategy.ops import NONE, Op
from . import Strategy, offers

_SUM = Op("ripple", algorithm="gather")

STRATEGY = Strategy(
    name="ripple",
    summary="ripples",
    colour="#5b8c2a",
    offers=offers(
        embed_out=(NONE, Op("all_reduce")),
        attn_in=(NONE,),
        attn_out=(_SUM,),
        mlp_in=(NONE,),
        mlp_out=(_SUM,),
        head_in=(NONE,),
    ),
)
''',
        "planner/executors/transformers.yaml": (Insert("\nops:\n", "  ripple: {impls: [gloo, nccl]}\n"),),
    },
    {"name": "ripple", "executor": "transformers"},
)

# ---- model and architecture ------------------------------------------------------------------------------------------

CONFIG = {
    "architectures": ["OtterForCausalLM"],
    "model_type": "otter",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 4,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
}
"""Of a model that nobody has trained."""

MODEL = """schema: commplan/model/v1
name: Otter
source: made up
architecture: OtterForCausalLM
hidden_size: 1024
num_hidden_layers: 4
vocab_size: 32000
num_attention_heads: 16
num_key_value_heads: 4
head_dim: 64
tie_word_embeddings: false
intermediate_size: 4096
"""

_READER = '''"""Otter: grouped-query attention, dense."""

from ..bounds import MAX_LAYERS
from ..config_json import ConfigJson
from . import Architecture, Fields


def _read(config: ConfigJson) -> Fields:
    heads, hidden = config.size("num_attention_heads"), config.size("hidden_size")
    return {
        "hidden_size": hidden,
        "num_hidden_layers": config.size("num_hidden_layers", MAX_LAYERS),
        "vocab_size": config.size("vocab_size"),
        "num_attention_heads": heads,
        "num_key_value_heads": config.size("num_key_value_heads"),
        "head_dim": hidden // heads,
        "tie_word_embeddings": config.flag("tie_word_embeddings"),
        "intermediate_size": config.size("intermediate_size"),
    }


ARCHITECTURES = (Architecture("OtterForCausalLM", _read),)
'''
_ADAPTER = '''"""Otter: grouped-query attention."""

from . import Adapter

ADAPTER = Adapter("OtterForCausalLM", "otter", column=("q_proj",), kv=("k_proj", "v_proj"))
'''
_SAMPLE = "tests/planner/descriptions/hf_configs/otter.json"

ARCHITECTURE = Trial(
    "Architecture",
    {
        "planner/strategy/architectures/otter.py": _READER,
        "configs/models/otter.yaml": MODEL,
        _SAMPLE: json.dumps(CONFIG),
        "runtime/transformers/models/otter.py": _ADAPTER,
        "planner/executors/transformers.yaml": (Insert("\narchitectures: [", "OtterForCausalLM, "),),
        "tests/runtime/transformers/tiny_models.py": "left out: transformers has no such class",
    },
    {"family": "otter", "name": "otter"},
)
MODEL_OF_A_KNOWN_FAMILY = Trial(
    "Model",
    {"configs/models/otter.yaml": MODEL, _SAMPLE: json.dumps(CONFIG)},
    {"name": "otter"},
)

# ---- hardware, vendor, backend ---------------------------------------------------------------------------------------


def _machine(name: str, vendor: str, backend: str) -> str:
    given = 'provenance: assumed, source: "made up"}'
    return f"""schema: commplan/hardware/v1
name: {name}
description: made up
vendor: {vendor}
devices_per_node: 8
backend: {backend}
compute:
  bf16_tflops: {{value: 1000, {given}
  fp32_tflops: {{value: 100, {given}
  gemm_efficiency: {{value: 0.7, {given}
  attention_efficiency: {{value: 0.5, {given}
  gemm_tile_rows: {{value: 64, {given}
memory:
  capacity_gb: {{value: 192, {given}
  bandwidth_gb_per_s: {{value: 5300, {given}
  bandwidth_efficiency: {{value: 0.7, {given}
  kernel_overhead_us: {{value: 3, {given}
links:
  intra_node:
    topology: full_mesh
    bandwidth_gb_per_s: {{value: 448, {given}
    efficiency: {{value: 0.7, {given}
    latency_us: {{value: 2, {given}
    collective_overhead_us: {{value: 8, {given}
"""


HARDWARE = Trial("Hardware", {"configs/hardware/pond-8.yaml": _machine("pond-8", "nvidia", "nccl")}, {"name": "pond-8"})

_EXECUTOR = "planner/executors/transformers.yaml"


def _backend(name: str, record: str, kernels: str) -> dict[str, str | tuple[Insert, ...]]:
    return {
        "planner/strategy/vendors.py": (Insert("\nBACKENDS = {\n", f'    "{name}": {record},\n'),),
        f"runtime/backends/{name}.py": kernels,
        _EXECUTOR: (
            Insert("\nimpls:\n", f"  {name}: {{vendors: [{record.split(chr(34))[1]}]}}\n"),
            Insert("\n  all_reduce: {impls: [", f"{name}, "),
            Insert("\n  reduce_scatter: {impls: [", f"{name}, "),
            Insert("\n  all_gather: {impls: [", f"{name}, "),
        ),
    }


_XCCL = '''"""XCCL on Intel GPUs."""

from .nccl import NcclBackend


class XcclBackend(NcclBackend):
    """As NCCL, without the collectives of our own, which nobody has run there."""

    name = "xccl"
    peer_limits = None


BACKEND = XcclBackend
'''
_COUNTING = '''"""gloo, with its sums counted."""

from torch import Tensor

from ..ranks.groups import Group
from .base import Backend


class CountingBackend(Backend):
    """torch.distributed over gloo on CPU tensors."""

    name = "counting"
    sums = 0

    def all_reduce(self, x: Tensor, group: Group) -> Tensor:
        """As the base, counted."""
        self.sums += 1
        return super().all_reduce(x, group)


BACKEND = CountingBackend
'''

VENDOR = Trial(
    "Vendor",
    {
        **_backend("xccl", 'BackendRecord("intel", "xpu", torch_name="nccl")', _XCCL),
        "configs/hardware/lake-8.yaml": _machine("lake-8", "intel", "xccl"),
    },
    {"backend": "xccl", "executor": "transformers", "name": "lake-8"},
)
BACKEND = Trial(
    "Backend",
    _backend("counting", 'BackendRecord("cpu", "cpu", torch_name="gloo")', _COUNTING),
    {"backend": "counting", "executor": "transformers"},
)

# ---- executor --------------------------------------------------------------------------------------------------------

EXECUTOR = Trial(
    "Executor",
    {
        "planner/executors/otterserve.yaml": """# A server that sums, and moves no shards.
schema: commplan/executor/v1
name: otterserve
description: a made-up server
versions: ["1.0"]
architectures: [Qwen3ForCausalLM]
impls:
  gloo: {vendors: [cpu]}
ops:
  all_reduce: {impls: [gloo]}
  reduce_scatter_all_gather: {impls: [gloo]}
absent:
  reduce_scatter: its norms take whole rows
refusals:
- {op: reduce_scatter_all_gather, boundaries: [mlp_out], reason: its MLP sums by itself}
stock:
  source: made up
  forwards:
  - {ops: {embed_out: all_reduce, attn_out: all_reduce, mlp_out: all_reduce}}
weights: {dtypes: [fp32]}
memory:
  static_fraction: {value: 0.8, provenance: assumed, source: made up}
latent_projections: one_gemm
gathers_only_logit_rows: true
host:
  launch: {prefill: graph, mixed: graph, decode: graph, target_verify: graph, draft_extend: graph}
  launch_us: {value: 10, provenance: assumed, source: "invented"}
  launches:
    {full_attention: 7, latent_attention: 11, linear_attention: 10, dense: 3, moe: 13, embed: 4, source: none}
kernels:
  add_norm: {default: [{name: add_rms_norm, read: {message: 4}, write: {message: 4}}]}
  norm: {default: [{name: rms_norm, read: {message: 2}, write: {message: 2}}]}
  wires: {}
"""
    },
    {"name": "otterserve"},
)

ALL = (STRATEGY, OP, ARCHITECTURE, HARDWARE, VENDOR, BACKEND, EXECUTOR)
"""They can all stand in one copy."""
