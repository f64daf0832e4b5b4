"""What a rank holds whatever the plan: its weights, and the KV cache of the stated contexts."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from ..cost.workload import work_of
from ..descriptions.deployment import DTYPE_BYTES
from ..descriptions.model import COMPRESSED, PAIRS
from ..descriptions.setup import Setup
from ..descriptions.weights import matrices
from ..strategy.words import WEIGHT_PARTS, AttentionKind, WeightPart

_STATE_BYTES = 4  # the state of linear attention is kept in fp32
_INDEX_SCALE_BYTES = 4  # of V3.2's index keys: 8-bit elements and an fp32 scale per token


def stages_of(setup: Setup) -> tuple[range | None, ...]:
    """The layers of each pipeline stage; None alone where one stage has all that are loaded."""
    pp = setup.parallelism.pp
    return setup.parallelism.stages(setup.model.num_hidden_layers) if pp > 1 else (None,)


def weight_bytes(setup: Setup, stage: range | None = None) -> dict[WeightPart, float]:
    """Bytes of weights on a rank by part of the model, in the order of the words; parts it has not are left out."""
    weights, activations = setup.weights, DTYPE_BYTES[setup.deployment.dtypes.activations]
    plain = activations if weights.record.quantized else weights.record.value_bytes
    total: dict[WeightPart, float] = {}
    for matrix in matrices(setup.model, setup.parallelism, setup.deployment.loaded_layers, stage):
        quantized = not matrix.plain and weights.is_quantized(matrix.part)
        kind = weights.of(matrix.part)
        each = kind.record.bytes(kind.block) if quantized else plain
        total[matrix.part] = total.get(matrix.part, 0.0) + each * matrix.parameters
    return {part: total[part] for part in WEIGHT_PARTS if part in total}


@dataclass(frozen=True)
class Asked:
    """What one forward asks of the cache of a rank: tokens of requests that its DP group holds."""

    mode: str
    tokens: int
    requests: int


class Cache:
    """The KV cache of a rank: bytes per token, and bytes per request of linear attention's state."""

    def __init__(self, setup: Setup, stage: range | None = None) -> None:
        m = setup.model
        self._setup = setup
        element = DTYPE_BYTES[setup.deployment.dtypes.kv_cache]
        held = stage if stage is not None else range(setup.deployment.loaded_layers or m.num_hidden_layers)
        kinds: Counter[AttentionKind] = Counter(m.attention_kind(layer) for layer in held)
        self.token_bytes = self.request_bytes = 0.0
        for kind, count in kinds.items():
            of_a_layer = self._row_elements(kind) * element
            if kind == "linear_attention":
                self.request_bytes += count * self._state_bytes()
                continue
            if kind == "sliding_attention" or m.compress_ratios:
                self.request_bytes += count * self._window() * of_a_layer
            if m.compress_ratios:
                ratio = next(ratio for ratio, named in COMPRESSED.items() if named == kind)
                of_a_layer = of_a_layer / ratio if ratio else 0.0
            if kind == "indexed_attention":
                of_a_layer += self._index_bytes(element)
            elif kind == "compressed_sparse_attention":
                of_a_layer += self._index_bytes(element) / PAIRS
            if kind != "sliding_attention":
                self.token_bytes += count * of_a_layer

    def _row_elements(self, kind: AttentionKind) -> int:
        """Elements of a cached position in a layer."""
        m, p = self._setup.model, self._setup.parallelism
        if m.compress_ratios:  # keys are values, of one head
            return m.head_dim
        if m.is_mla:  # every rank holds the latents of all heads
            return (m.kv_lora_rank or 0) + (m.qk_rope_head_dim or 0)
        return max(1, m.key_value_heads(kind) // p.attn_tp) * (m.head_dim + m.value_head_dim)

    def _index_bytes(self, element: float) -> float:
        """Of a position's index key: 8-bit with a scale by DeepSeek's indexer, else as the cache is."""
        m = self._setup.model
        width = m.index_head_dim or 0
        return width + _INDEX_SCALE_BYTES if m.q_lora_rank is not None else width * element

    def _window(self) -> int:
        """Positions that a sliding layer keeps of a request: the window, or the longest context where that is less."""
        deployment = self._setup.deployment
        longest = 0
        for mode, spec in deployment.modes.items():
            work = work_of(mode, spec, spec.tokens[1])
            longest = max(longest, math.ceil(work.cached / work.requests) if work.requests else 0)
        return min(longest, self._setup.model.sliding_window or longest)

    def _state_bytes(self) -> float:
        """The [key, value] state of each head, and the last inputs of the convolution."""
        m, p = self._setup.model, self._setup.parallelism
        keys = (m.linear_num_key_heads or 0) * (m.linear_key_head_dim or 0)
        values = (m.linear_num_value_heads or 0) * (m.linear_value_head_dim or 0)
        state = values * (m.linear_key_head_dim or 0) * _STATE_BYTES
        window = max(0, (m.linear_conv_kernel_dim or 1) - 1) * (2 * keys + values)
        return (state + window * DTYPE_BYTES[self._setup.deployment.dtypes.activations]) / p.attn_tp

    def asked(self, mode: str, tokens: int) -> Asked:
        """What a forward of `tokens` rows over the whole tp group finds in the cache, or leaves there."""
        work = work_of(mode, self._setup.deployment.modes[mode], tokens)
        if not work.requests:
            return Asked(mode, 0, 0)
        requests = math.ceil(work.requests / self._setup.parallelism.attn_dp)
        return Asked(mode, math.ceil(work.cached / work.requests * requests), requests)

    def bytes(self, asked: Asked) -> float:
        """Bytes of so many tokens and requests."""
        return asked.tokens * self.token_bytes + asked.requests * self.request_bytes
