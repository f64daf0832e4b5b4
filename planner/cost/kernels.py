"""Time of what a device does alone: GEMMs by a roofline with a small-M correction, and passes over memory."""

from __future__ import annotations

from ..descriptions.deployment import DTYPE_BYTES
from ..descriptions.hardware import Hardware
from ..descriptions.weight_types import WeightFormat
from ..executors import Kernels
from .estimate import Estimate, weakest
from .measured import MeasuredKernels


class DeviceCosts:
    """Prices of kernels on one device."""

    def __init__(
        self,
        hardware: Hardware,
        weights: WeightFormat,
        activation_dtype: str,
        measured: MeasuredKernels | None = None,
    ) -> None:
        compute, memory = hardware.compute, hardware.memory
        core = compute.fp32_tflops if activation_dtype == "fp32" else compute.bf16_tflops
        core = core or compute.bf16_tflops
        of_activations = weights.record.rate is None or weights.dtype == activation_dtype
        rate = core if of_activations else getattr(compute, str(weights.record.rate))
        assert rate is not None  # checked when the deployment was read
        self._measured, self._dtype = measured, activation_dtype
        self._plain_weights = weights.dtype == activation_dtype
        self.quantizes_rows = weights.record.takes_quantized_rows
        self.weight_bytes = weights.record.bytes(weights.block)
        self.activation_bytes = DTYPE_BYTES[activation_dtype]
        self.launch_us = memory.kernel_overhead_us.value
        self._gemm_rate = rate.value * compute.gemm_efficiency.value * 1e6  # operations per us
        self._attention_rate = core.value * compute.attention_efficiency.value * 1e6
        eight_bit = compute.fp8_tflops or compute.int8_tops or core
        self._score_rate = eight_bit.value * compute.gemm_efficiency.value * 1e6
        self._tile_rows = compute.gemm_tile_rows.value
        self._memory_rate = memory.bandwidth_gb_per_s.value * memory.bandwidth_efficiency.value * 1e3  # bytes per us
        self._gemm_provenance = weakest({rate.provenance, compute.gemm_efficiency.provenance})
        self._memory_provenance = weakest(
            {memory.bandwidth_gb_per_s.provenance, memory.bandwidth_efficiency.provenance}
        )

    def gemm(self, rows: float, inner: int, columns: float, batch: float = 1.0) -> Estimate:
        """[rows, inner] x [inner, columns], `batch` of them in one launch (the experts of a MoE).

        Fewer rows than a tile cost the arithmetic of a tile; the weights are read once.
        """
        if rows <= 0 or batch <= 0:
            return NOTHING
        if self._measured is not None and self._plain_weights and batch == 1:
            found = self._measured.gemm(rows, inner, int(columns), self._dtype)
            if found is not None:
                return found
        operations = 2.0 * max(rows, self._tile_rows) * inner * columns * batch
        moved = batch * (self.weight_bytes * inner * columns + self.activation_bytes * rows * (inner + columns))
        time = max(operations / self._gemm_rate, moved / self._memory_rate)
        return Estimate(time, self.launch_us, 0.0, self._gemm_provenance, "roofline")

    def attention(self, operations: float, read_bytes: float) -> Estimate:
        """The attention core: arithmetic in the activation type, or the pass over the cached keys and values."""
        if operations <= 0:
            return NOTHING
        time = max(operations / self._attention_rate, read_bytes / self._memory_rate)
        return Estimate(time, self.launch_us, 0.0, self._gemm_provenance, "roofline")

    def scores(self, operations: float, read_bytes: float) -> Estimate:
        """Scores of a sparse index: 8-bit arithmetic where the device has it."""
        if operations <= 0:
            return NOTHING
        time = max(operations / self._score_rate, read_bytes / self._memory_rate)
        return Estimate(time, self.launch_us, 0.0, self._gemm_provenance, "roofline")

    def passes(self, kernels: Kernels, elements: float, group_size: int = 1, width: int = 1) -> Estimate:
        """Memory-bound kernels over `elements` activations, in rows of `width`.

        Bytes per element are stated for 2-byte activations, so a wider type scales them.
        """
        if elements <= 0 or not kernels:
            return NOTHING
        if self._measured is not None:
            message_bytes = elements * self.activation_bytes
            found = self._measured.passes(kernels, self._dtype, message_bytes, width, group_size)
            if found is not None:
                return found
        scale = self.activation_bytes / 2
        moved = sum(kernel.bytes(elements, group_size) for kernel in kernels) * scale
        return Estimate(
            moved / self._memory_rate, self.launch_us * len(kernels), 0.0, self._memory_provenance, "passes over memory"
        )

    def memory_bytes(self, moved: float) -> Estimate:
        """One kernel that moves this many bytes."""
        if moved <= 0:
            return NOTHING
        return Estimate(moved / self._memory_rate, self.launch_us, 0.0, self._memory_provenance, "passes over memory")


NOTHING = Estimate(0.0, 0.0, 0.0, "formula", "nothing runs")
