"""A wire format that nobody has built: FP8 values with a scale for every row.

The record, the strategy that offers it, what the executor can run, and how rows are quantised. The error is what e4m3
measures on normal rows.
"""

from __future__ import annotations

from .trial import Insert, Trial

ERRORS = {"gather": 0.0265, "two_shot": 0.0374}
COLOUR = "#7a3fb0"

RECORD = f'''
FP8_E4M3 = Wire("fp8_e4m3", "FP8", bits=8, carrier="int8")
FP8_ALL_REDUCE = quantized_all_reduce(
    "fp8_all_reduce",
    FP8_E4M3,
    {{name: Error({{2: error}}, "a trial") for name, error in {ERRORS}.items()}},
    colour="{COLOUR}",
    summary="sum of FP8 values, replicated",
)
'''

STRATEGY = f'''"""FP8 all-reduce, a scale for every row."""

from ..strategy.op_kinds import FP8_ALL_REDUCE
from ..strategy.ops import NONE, SLICE, Op
from . import Strategy, offers

_SUMS = (NONE, *(Op(FP8_ALL_REDUCE.name, algorithm=a, residual=r) for a in FP8_ALL_REDUCE.algorithms
                 for r in (None, "gather")))

STRATEGY = Strategy(
    name="fp8_all_reduce",
    summary="FP8 all-reduce",
    colour="{COLOUR}",
    offers=offers(
        embed_out=(NONE, Op("all_reduce")),
        attn_in=(NONE, SLICE, Op("all_gather")),
        attn_out=_SUMS,
        mlp_in=(NONE, SLICE, Op("all_gather")),
        mlp_out=_SUMS,
        head_in=(NONE, Op("all_gather")),
    ),
)
'''

KERNELS = """
    fp8_e4m3:
      quantize:
        default: [{name: row_max, read: {message: 2}}, {name: to_fp8, read: {message: 2}, write: {message: 1}}]
      dequantize_sum:
        default:
        - {name: dequantize_fp8, read: {gathered: 1}, write: {gathered: 4}}
        - {name: sum, read: {gathered: 4}, write: {message: 2}}
      reduce_shard:
        default:
        - {name: dequantize_fp8, read: {message: 1}, write: {message: 4}}
        - {name: to_fp8, read: {message: 4}, write: {shard: 1}}
      dequantize:
        default: [{name: dequantize_fp8, read: {message: 1}, write: {message: 2}}]
"""

FORMAT = '''
class Fp8(Format):
    """e4m3, a scale for every row."""

    def quantize(self, x_RH: Tensor) -> tuple[Tensor, Tensor]:
        """The largest value of a row becomes 448."""
        scale = x_RH.abs().amax(dim=-1, keepdim=True).float() / 448.0
        divisor = torch.where(scale == 0, torch.ones_like(scale), scale)
        return (x_RH / divisor).to(torch.float8_e4m3fn).view(torch.int8), scale

    def dequantize(self, values: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
        """Values times scales."""
        return (values.view(torch.float8_e4m3fn).float() * scales).to(dtype)


FORMATS["fp8_e4m3"] = Fp8
'''


WIRE_FORMAT = Trial(
    "Wire format",
    {
        "planner/strategy/op_kinds.py": (
            Insert('kernel=OwnKernel("int8_all_reduce", argument="algorithm", norm=True),\n)\n', RECORD),
            Insert("\n_KINDS = (\n", "    FP8_ALL_REDUCE,\n"),
        ),
        "planner/strategies/fp8_all_reduce.py": STRATEGY,
        "planner/executors/transformers.yaml": (
            Insert("\nops:\n", "  fp8_all_reduce: {impls: [nccl, hccl, gloo]}\n"),
            Insert("\n  wires:\n", KERNELS.removeprefix("\n")),
        ),
        "runtime/collectives/formats.py": (Insert(None, FORMAT),),
    },
    {"name": "fp8_all_reduce", "executor": "transformers"},
)
