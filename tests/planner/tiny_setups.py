"""Small setups for tests: models of a few layers on invented machines, written to YAML and read like anyone's files."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from commplan.planner.descriptions.calibration import COLLECTIVES
from commplan.planner.descriptions.loader import load_setup
from commplan.planner.descriptions.setup import Setup

Mapping = dict[str, Any]

HIDDEN_SIZE = 256
_numbers = itertools.count()


def figure(value: float, provenance: str = "assumed") -> Mapping:
    return {"value": value, "provenance": provenance, "source": "invented for a test"}


def dense_model(layers: int = 2) -> Mapping:
    return {
        "schema": "commplan/model/v1",
        "name": "tiny-dense",
        "architecture": "Qwen3ForCausalLM",
        "hidden_size": HIDDEN_SIZE,
        "num_hidden_layers": layers,
        "vocab_size": 1024,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 32,
        "intermediate_size": 768,
    }


def latent_model(layers: int = 2, **fields: Any) -> Mapping:
    """MLA with q_lora_rank, dense MLPs in the first layer and experts in the others."""
    return dense_model(layers) | {
        "name": "tiny-latent",
        "architecture": "DeepseekV3ForCausalLM",
        "num_key_value_heads": 16,
        "head_dim": 48,
        "q_lora_rank": 96,
        "kv_lora_rank": 32,
        "qk_nope_head_dim": 32,
        "qk_rope_head_dim": 16,
        "v_head_dim": 32,
        "num_experts": 16,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 128,
        "dense_layers": [0],
        **fields,
    }


def table(
    op: str, group_size: int, points: dict[int, float], dtype: str = "bf16", impl: str = "nccl", **fields: Any
) -> Mapping:
    """A table of latencies in us by message bytes; `op` with its algorithm where it has one, as in `x.gather`."""
    op, _, algorithm = op.partition(".")
    if algorithm:
        fields["algorithm"] = algorithm
    return {
        **fields,
        "op": op,
        "impl": impl,
        "dtype": dtype,
        "group_size": group_size,
        "message_bytes": list(points),
        "latency_us": list(points.values()),
    }


KERNELS, WITH_NORM = "commplan_triton", "commplan_triton_norm"
INT8_GATHER, INT8_TWO_SHOT = "int8_all_reduce.gather", "int8_all_reduce.two_shot"
PAIRS = ("all_reduce_all_gather", "reduce_scatter_all_reduce")
_WITH_NORM = ("all_reduce", INT8_GATHER, INT8_TWO_SHOT, "reduce_scatter")


def own_table(
    op: str,
    group_size: int,
    points: dict[int, float],
    impl: str = KERNELS,
    width: int | None = HIDDEN_SIZE,
    **more: Any,
) -> Mapping:
    """The table of an op that is one kernel: us by rows, of rows of `width` bf16 elements."""
    row_bytes = 2 * (width or HIDDEN_SIZE)
    if width is not None:
        more["width"] = width
    by_bytes = {rows * row_bytes: time for rows, time in points.items()}
    return table(op, group_size, by_bytes, impl=impl, **more)


def own_tables(group_sizes: tuple[int, ...], attn_dp: int = 1, scale: float = 1.0) -> tuple[Mapping, ...]:
    """Tables of every op that is one kernel, no two of them alike."""
    found = []
    for size in group_sizes:
        for index, (op, impl) in enumerate(
            [(op, KERNELS) for op in (*_WITH_NORM, "all_gather")] + [(op, WITH_NORM) for op in _WITH_NORM]
        ):
            rate = 40 + 30 * index if "int8" not in op else 150 + 30 * index
            points = {4**k: round(scale * (2 + 0.3 * index + 4**k / rate), 4) for k in range(7)}
            found.append(own_table(op, size, points, impl))
    for index, op in enumerate(PAIRS if attn_dp > 1 else ()):
        points = {4**k: scale * (3 + index + 4**k / 30) for k in range(7)}
        found.append(own_table(op, max(group_sizes), points, attn_dp=attn_dp))
    return tuple(found)


WITH_COMPOSED = ("transformers", "sglang", "plan_only")
NONE_COMPOSED = [
    {"op": op, "impl": impl}
    for op in ("int8_all_reduce", "quantized_all_reduce")
    for impl in ("composed", "composed_norm")
]


@dataclass(frozen=True)
class Machine:
    """The figures of an invented machine; `tables` are measured on it.

    Its devices do not read each other's memory unless it says so: then only impls with tables are offered for that.
    """

    devices_per_node: int = 8
    num_nodes: int = 1
    vendor: str = "nvidia"
    compute_capability: str | None = None
    topology: str = "switch"
    link_gb_per_s: float = 100.0
    link_efficiency: float = 1.0
    hop_us: float = 1.0
    call_us: float = 5.0
    peer_access: bool = False
    multicast: bool = True
    inter_node_gb_per_s: float = 25.0
    bf16_tflops: float = 100.0
    fp8_tflops: float | None = None
    memory_gb_per_s: float = 1000.0
    kernel_us: float = 2.0
    tile_rows: int = 16
    tables: tuple[Mapping, ...] = ()
    provenance: str = "measured"
    transferred_because: str | None = None

    def mapping(self, calibration: Path | None) -> Mapping:
        """The hardware description, with the calibration it names."""
        uses = []
        if calibration is not None:
            uses.append({"file": str(calibration), "transferred_because": self.transferred_because})
        links = {"intra_node": self._link(self.link_gb_per_s)}
        if self.num_nodes > 1:
            links["inter_node"] = self._link(self.inter_node_gb_per_s) | {"topology": "switch"}
        return {
            "schema": "commplan/hardware/v1",
            "name": "invented",
            "description": "an invented machine",
            "vendor": self.vendor,
            "devices_per_node": self.devices_per_node,
            "num_nodes": self.num_nodes,
            **({} if self.compute_capability is None else {"compute_capability": self.compute_capability}),
            "backend": {"nvidia": "nccl", "ascend": "hccl", "cpu": "gloo"}[self.vendor],
            "compute": {
                "bf16_tflops": figure(self.bf16_tflops),
                **({} if self.fp8_tflops is None else {"fp8_tflops": figure(self.fp8_tflops)}),
                "gemm_efficiency": figure(0.5),
                "attention_efficiency": figure(0.5),
                "gemm_tile_rows": figure(self.tile_rows),
            },
            "memory": {
                "capacity_gb": figure(80),
                "bandwidth_gb_per_s": figure(self.memory_gb_per_s),
                "bandwidth_efficiency": figure(0.8),
                "kernel_overhead_us": figure(self.kernel_us),
            },
            "links": links,
            "calibrations": uses,
        }

    def _link(self, bandwidth: float) -> Mapping:
        return {
            "topology": self.topology,
            "bandwidth_gb_per_s": figure(bandwidth),
            "efficiency": figure(self.link_efficiency),
            "latency_us": figure(self.hop_us),
            "collective_overhead_us": figure(self.call_us),
            "peer_access": self.peer_access,
            "multicast": self.multicast,
        }

    def calibration(self) -> Mapping:
        """The description of its tables."""
        return {
            "schema": "commplan/calibration/v1",
            "name": "invented",
            "machine": "an invented machine",
            "library": "invented",
            "provenance": self.provenance,
            "source": "invented for a test",
            "ops": sorted({t["op"] for t in self.tables} & set(COLLECTIVES)),
            "tables": list(self.tables),
        }


@dataclass
class SetupFolder:
    """Writes descriptions into a folder and reads them back as a Setup."""

    folder: Path
    executor: str = "transformers"
    modes: Mapping = field(
        default_factory=lambda: {
            "prefill": {"tokens": [1, 4096], "sequence_tokens": 64},
            "decode": {"tokens": [1, 256], "context_tokens": 128},
        }
    )

    def setup(
        self,
        model: Mapping,
        machine: Machine | None = None,
        *,
        tp: int = 4,
        attn_dp: int = 1,
        ep: int = 1,
        moe_backend: str = "tensor_parallel",
        loosest: str = "quantized",
        sensitivity: Mapping | None = None,
        numerics: Mapping | None = None,
        launch: str | None = None,
        borrows: bool = False,
        composed: bool = False,
        **deployment: Any,
    ) -> Setup:
        """A checked Setup, without tables of real machines unless it `borrows`; `launch` is that of every mode.

        Sums composed around the library, each in several numbers of pieces, are forbidden unless it is about them.

        More keywords are the deployment's.
        """
        machine = machine or Machine()
        calibration = self._write("calibration", machine.calibration()) if machine.tables else None
        rules: Mapping = {"loosest": loosest, **(numerics or {})}
        if not composed and self.executor in WITH_COMPOSED:
            rules["forbid"] = [*rules.get("forbid", ()), *NONE_COMPOSED]
        if sensitivity is not None:
            given = self._write("sensitivity", {"schema": "commplan/sensitivity/v1", **sensitivity})
            rules["sensitivity"] = str(given)
        description = {
            "schema": "commplan/deployment/v1",
            "name": "tiny",
            "model": str(self._write("model", model)),
            "hardware": str(self._write("hardware", machine.mapping(calibration))),
            "executor": self.executor,
            "parallelism": {"tp": tp, "attn_dp": attn_dp, "ep": ep, "moe_backend": moe_backend},
            "modes": {mode: work | ({"launch": launch} if launch else {}) for mode, work in self.modes.items()},
            "numerics": rules,
            **deployment,
        }
        setup = load_setup(str(self._write("deployment", description)))
        return setup if borrows else replace(setup, lent=())

    def _write(self, kind: str, data: Mapping) -> Path:
        path = self.folder / f"{kind}-{next(_numbers)}.yaml"
        path.write_text(json.dumps(data, indent=1), encoding="utf-8")  # JSON is YAML in flow style
        return path
