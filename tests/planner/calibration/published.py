"""Published outputs of benchmarks, and how to change them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "outputs"
RANKS = "#  Rank {rank:2d} Group {group:2d} Pid 1 on {host} device {rank} [0000:04:00] NVIDIA H100 80GB HBM3\n"
COLUMNS = (
    "#       size         count      type   redop    root     time   algbw   busbw #wrong"
    "     time   algbw   busbw #wrong\n"
    "#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)\n"
)
FACTORS = {"all_reduce": 2.0, "all_gather": 1.0, "reduce_scatter": 1.0, "alltoall": 1.0}
ELEMENTS = {"float": 4, "half": 2, "bfloat16": 2, "int8": 1, "double": 8}


def text_of(name: str) -> str:
    """A published output."""
    return (FOLDER / name).read_text(encoding="utf-8")


def nccl(
    op: str = "all_reduce",
    ranks: int = 8,
    hosts: int = 1,
    groups: int = 1,
    dtypes: tuple[str, ...] = ("float",),
    sizes: tuple[int, ...] = (1 << 20, 1 << 22, 1 << 24),
    us: float = 40.0,
    bytes_per_us: float = 1e5,
    scale: float = 1.0,
    graph: int = 0,
) -> str:
    """An invented output of nccl-tests, of the make that published ones have."""
    text = (
        "# nccl-tests version 2.18.0 nccl-headers=22907 nccl-library=22907\n"
        f"# Collective test starting: {op}_perf\n"
        f"# nThread 1 nGpus 1 minBytes {sizes[0]} maxBytes {sizes[-1]} step: 4(factor) warmup iters: 5 iters: 20 "
        f"agg iters: 1 validation: 1 graph: {graph}\n#\n# Using devices\n"
    )
    for rank in range(ranks * groups):
        host = f"host-{rank * hosts // (ranks * groups)}" if groups == 1 else f"host-{rank % ranks * hosts // ranks}"
        text += RANKS.format(rank=rank, group=rank // ranks, host=host)
    text += "#\n" + COLUMNS
    rates = []
    for dtype in dtypes:
        for size in sizes:
            row, both = nccl_row(op, ranks, dtype, size, us + size / bytes_per_us, scale)
            text += row
            rates += both
    return text + (
        "# Out of bounds values : 0 OK\n"
        f"# Avg bus bandwidth    : {sum(rates) / len(rates):.6g}\n#\n# Collective test concluded: {op}_perf\n"
    )


def nccl_row(op: str, ranks: int, dtype: str, size: int, us: float, scale: float = 1.0) -> tuple[str, list[float]]:
    """A row, and its two bus bandwidths. `scale`: what the times are multiplied with, and bandwidths are not."""
    part = 1 if op == "all_reduce" else ranks
    redop = "none" if op in ("all_gather", "alltoall") else "sum"
    count, rates, cells = size // ELEMENTS[dtype] // part, [], ""
    for time in (us, us * 1.1):
        algorithm = size / time / 1e3
        bus = algorithm * FACTORS[op] * (ranks - 1) / ranks
        rates.append(round(bus, 2))
        cells += f"  {time * scale:.2f}  {algorithm:.2f}  {bus:.2f}  0"
    return f"  {size}  {count}  {dtype}  {redop}  -1{cells}\n", rates


def nccl_json(ranks: int = 8, **changed: Any) -> str:
    """What -J writes, by the fields that its source names."""
    results, rates = [], []
    for size in (1 << 20, 1 << 24):
        entry: dict[str, Any] = {"size": size, "count": size // 4, "type": "float", "redop": "sum", "root": "    -1"}
        for way, us in (("out_of_place", 40 + size / 1e5), ("in_place", 44 + size / 1e5)):
            algorithm = size / us / 1e3
            bus = algorithm * 2 * (ranks - 1) / ranks
            rates.append(bus)
            entry[way] = {"time": us, "alg_bw": algorithm, "bus_bw": bus, "nwrong": 0.0}
        results.append(entry)
    device = {
        "rank": 0,
        "group": 0,
        "pid": 1,
        "hostname": "host-a",
        "device": 0,
        "device_info": "NVIDIA H100 80GB HBM3",
    }
    data = {
        "version": 2,
        "args": ["./build/all_reduce_perf", "-g", str(ranks)],
        "env": ["A=b"],
        "nccl_version": 22907,
        "config": {"nthreads": 1, "ngpus": ranks, "validation": 1, "graph": 0, "devices": [device]},
        "results": results,
        "out_of_bounds": {"count": 0, "okay": "true"},
        "average_bus_bandwidth": {"bandwidth": sum(rates) / len(rates), "okay": "unchecked"},
    }
    return json.dumps(data | changed)


def rccl_json(ranks: int = 8) -> list[dict[str, Any]]:
    """What -Z json writes."""
    records = []
    for size in (1 << 20, 1 << 24):
        for in_place in (0, 1):
            us = 40 + size / 1e5 + in_place
            rate = size / us / 1e3
            record = {"numCycle": 0, "name": "AllReduce", "nodes": 1, "ranks": ranks, "ranksPerNode": ranks}
            record |= {"gpusPerRank": 1, "size": size, "type": "bfloat16", "redop": "sum", "inPlace": in_place}
            record |= {"time": us, "algBw": rate, "busBw": rate * 2 * (ranks - 1) / ranks, "wrong": "0"}
            records.append(record)
    return records


def vllm_json(**changed: Any) -> str:
    """What --output-json writes."""
    data = {
        "world_size": 4,
        "dtype": "torch.bfloat16",
        "hidden_size": 8192,
        "sequence_lengths": [32, 64],
        "results": {
            "32": {"timings": {"pynccl": 0.0171, "ca_1stage": 0.01021}, "speedup_info": "ca_1stage (1.68x)"},
            "64": {"timings": {"pynccl": 0.0193, "ca_1stage": 0.01452}, "speedup_info": "ca_1stage (1.33x)"},
        },
    }
    return json.dumps(data | changed)
