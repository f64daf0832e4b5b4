"""Types of weights: how many bytes one takes, at which rate its GEMMs compute, and the blocks that share a scale.

A block is [rows, columns] of a weight as checkpoints store it: [output features, input features]. Where a weight is
sharded, its shards must be whole blocks: no server splits a scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

WeightType = Literal["fp32", "bf16", "fp16", "fp8", "int8", "w8a16", "w4a16", "mxfp4"]
Block = tuple[int, int]


@dataclass(frozen=True)
class WeightRecord:
    """What is known of a type of weights.

    rate         the rate of the device that its GEMMs reach; null: that of the activations (weight-only types)
    block        rows and columns under one scale in published checkpoints; null: a scale per row, or none
    scale_bytes  of one scale
    """

    value_bytes: float
    rate: Literal["fp32_tflops", "bf16_tflops", "fp8_tflops", "int8_tops"] | None
    block: Block | None = None
    scale_bytes: int = 0
    quantized: bool = False

    @property
    def takes_quantized_rows(self) -> bool:
        """True where the activations are quantised for its GEMMs too."""
        return self.quantized and self.rate is not None

    def bytes(self, block: Block | None) -> float:
        """Bytes of one weight. Scales count where they belong to a row alone: those of 128 x 128 are one in 4096."""
        scales = self.scale_bytes / block[1] if block is not None and block[0] == 1 else 0.0
        return self.value_bytes + scales


WEIGHT_TYPES: dict[str, WeightRecord] = {
    "fp32": WeightRecord(4, "fp32_tflops"),
    "bf16": WeightRecord(2, "bf16_tflops"),
    "fp16": WeightRecord(2, "bf16_tflops"),
    # Blocks of DeepSeek V3 and of the FP8 checkpoints of Qwen3 and MiniMax: weight_block_size [128, 128].
    "fp8": WeightRecord(1, "fp8_tflops", block=(128, 128), scale_bytes=4, quantized=True),
    "int8": WeightRecord(1, "int8_tops", quantized=True),  # W8A8, a scale per row
    "w8a16": WeightRecord(1, None, quantized=True),  # 8 bits, int or float, unpacked to the activations' type
    # GPTQ, AWQ and compressed-tensors: groups of 128 inputs, a 16-bit scale each.
    "w4a16": WeightRecord(0.5, None, block=(1, 128), scale_bytes=2, quantized=True),
    "mxfp4": WeightRecord(0.5, None, block=(1, 32), scale_bytes=1, quantized=True),  # OCP MX: 32 inputs, E8M0 scale
}
assert set(WEIGHT_TYPES) == set(get_args(WeightType))


@dataclass(frozen=True)
class WeightFormat:
    """The weights of a setup: their type, their block, the parts of the model that are left as activations are, and
    those that are of another type."""

    dtype: str
    block: Block | None
    unquantized: tuple[str, ...] = ()
    other: WeightFormat | None = None
    other_parts: tuple[str, ...] = ()

    @property
    def record(self) -> WeightRecord:
        """What is known of the type."""
        return WEIGHT_TYPES[self.dtype]

    def of(self, part: str) -> WeightFormat:
        """The type of this part of the model, where it is quantised."""
        return self.other if self.other is not None and part in self.other_parts else self

    def is_quantized(self, part: str) -> bool:
        """True where the weights of this part of the model are quantised."""
        return self.record.quantized and part not in self.unquantized
