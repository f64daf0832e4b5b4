"""What is read off a trace of torch's profiler."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

SETTING = {"card": "two cards", "shape": "qwen3-32b", "layers": 64, "links": "as they are", "start": 1, "group": "x"}


def kernel(name: str, ts: float, dur: float) -> dict[str, object]:
    return {"cat": "kernel", "name": name, "ts": ts, "dur": dur}


ENDS = {"busy_us": 98.5, "span_us": 118.0}
TRACE = [
    kernel("void at::native::vectorized<float, 4>(int)", 0.0, 10.0),
    kernel("void at::native::vectorized<half, 4>(int)", 5.0, 10.0),
    kernel("ours_two_shot", 25.0, 4.0),
    {"cat": "cpu_op", "name": "aten::add", "ts": 0.0, "dur": 500.0},
]


def test_kernels_are_summed_by_name_per_forward(bench) -> None:
    told = bench.profiling.told_by(TRACE, 2)
    assert told["us"] == {"vectorized": 10.0, "ours_two_shot": 2.0}


def test_kernels_at_once_count_once_in_what_is_busy(bench) -> None:
    told = bench.profiling.told_by(TRACE, 1)
    assert (told["busy_us"], told["span_us"]) == (19.0, 29.0)


def test_an_empty_trace_is_no_failure(bench) -> None:
    assert bench.profiling.told_by([], 1) == {"us": {}, "idle": {}, "busy_us": 0.0, "span_us": 0.0}


def test_the_time_in_which_nothing_runs_is_summed_by_what_stands_around_it(bench) -> None:
    events = [
        kernel("gemm", 0.0, 10.0),
        kernel("copy", 2.0, 3.0),  # within the GEMM: it is the GEMM that ends last
        kernel("ours", 12.0, 4.0),
        kernel("gemm", 20.0, 10.0),
        kernel("ours", 31.0, 1.0),
        kernel("gemm", 32.0, 1.0),
    ]
    told = bench.profiling.told_by(reversed(events), 2)
    assert told["idle"] == {"ours > gemm": 2.0, "gemm > ours": 1.5}
    assert (told["busy_us"], told["span_us"]) == (13.0, 16.5)


class Traced:
    """A server that writes a trace where it is told to."""

    def __init__(self) -> None:
        self.folder = Path()

    def ask(self, path: str, body: dict[str, str], timeout_s: float) -> None:
        if path == "/start_profile":
            self.folder = Path(body["output_dir"])
        else:
            for rank, events in ((0, TRACE), (1, TRACE[2:])):
                with gzip.open(self.folder / f"1-TP-{rank}.trace.json.gz", "wt") as file:
                    json.dump({"traceEvents": events}, file)
            (self.folder / "1-TP-2.trace.json.gz").write_bytes(b"\x1f\x8b")  # not yet whole

    def generate(self, prompts: list[list[int]], new_tokens: int, timeout_s: float) -> None:
        assert self.folder.is_dir()


def test_the_trace_of_rank_0_is_read_and_an_older_one_is_not(bench, tmp_path: Path) -> None:
    for _ in range(2):
        told = bench.profiling.profile(Traced(), [[1]], 2, tmp_path / "traces", 5)
        assert told["us"]["ours_two_shot"] == 2.0
        assert told["busy_us_of_others"] == [2.0]


def test_tables_have_the_kernels_of_configurations_side_by_side(bench) -> None:
    rows = [
        {**SETTING, "run": "a", "what": "profile", "configuration": name, "kind": "decode", "size": 1, **told}
        for name, told in (
            (
                "unmodified",
                {"us": {"gemm": 90.0, "custom": 9.0}, "busy_us": 99.0, "span_us": 120.0, "busy_us_of_others": [97.0]},
            ),
            ("reordered", {"us": {"gemm": 91.0, "ours": 7.5}, "idle": {"gemm > ours": 9.0}, **ENDS}),
        )
    ]
    measured = {**SETTING, "run": "a", "what": "decode", "configuration": "unmodified", "batch": 1, "ms": [1.0]}
    text = bench.tables.tables(bench.kept.Kept([measured, *rows]), markdown=True)
    for line in (
        "| gemm | 90.0 | 91.0 |",
        "| custom | 9.0 | - |",
        "| ours | - | 7.5 |",
        "| some kernel runs | 99.0 | 98.5 |",
        "| some kernel runs, other ranks | 97.0 | - |",
        "- reordered: gemm > ours 9.0",
    ):
        assert line in text
