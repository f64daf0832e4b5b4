"""`commplan launch sglang`, with and without --dry-run: what cannot be started is refused before anything is."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest

from commplan.planner.strategy.file import HardwareStamp, Parallelism
from commplan.runtime.servers.sglang import command
from commplan.runtime.servers.sglang.command import server_command
from commplan.runtime.servers.sglang.line import check_line, typed

from ....planner.cli.commandline import run
from .fakes import strategy
from .plans import written
from .test_export import with_faster_flag

HAS_SGLANG = importlib.util.find_spec("sglang") is not None


@pytest.fixture(autouse=True)
def executed(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Command lines that would have replaced this process."""
    lines: list[list[str]] = []
    monkeypatch.setattr(os, "execve", lambda path, line, environment: lines.append(line))
    return lines


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "check_installed", lambda: None)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return written(strategy(), tmp_path / "plan.yaml")


def launched(plan: Path, *arguments: object, model: object = "owner/model", dry: bool = True) -> Any:
    more = ("--dry-run",) if dry else ()
    return run("launch", "sglang", plan, "--model-path", model, *more, "--", *arguments)


@pytest.mark.usefixtures("installed")
def test_launch_shows_its_command_and_dry_run_leaves_it_at_that(plan: Path, executed: list[list[str]]) -> None:
    done = launched(plan, "--port", "1")
    assert (done.code, executed) == (0, [])
    assert done.err.splitlines()[0] == "  --tp-size 2: the plan is for 2 ranks"
    assert done.err.splitlines()[-1] == "  --max-running-requests 8: the plan's decode ends at 8 tokens"
    assert done.out.startswith(f"COMMPLAN_STRATEGY={plan} ")
    assert done.out.endswith("--max-running-requests 8 --port 1\n")
    started = launched(plan, "--port", "1", dry=False)
    assert (started.code, started.out, started.err) == (0, "", done.out + done.err)
    assert [line[-2:] for line in executed] == [["--port", "1"]]


@pytest.mark.usefixtures("installed")
def test_launch_says_where_a_flag_would_be_faster_than_the_plan(tmp_path: Path) -> None:
    plan = written(with_faster_flag(strategy()), tmp_path / "plan.yaml")
    done = launched(plan)
    assert (done.code, done.out[:16]) == (0, "COMMPLAN_STRATEG")
    assert done.err.startswith(
        "The stock flag --enable-layernorm-sp is faster than this plan in prefill of 20-256 tokens"
    )


REFUSED: list[tuple[tuple[str, ...], str, str]] = [
    (("--tp-size", "4"), "--tp-size", "the plan is for tp 2"),
    (("--tp", "4"), "--tp-size", "the plan is for tp 2"),
    (("--tensor-parallel-size=1",), "--tp-size", "the plan is for tp 2"),
    (("--tp-size", "two"), "--tp-size", "a whole number from 1"),
    (("--tp-size",), "--tp-size", "a whole number from 1"),
    (("--pp-size", "2"), "--pp-size", "part of the layers"),
    (("--dp-size", "2"), "--dp-size", "several replicas"),
    (("--port", "99999"), "--port", "from 1 to 65535"),
    (("--port", "0"), "--port", "from 1 to 65535"),
    (("--dtype", "bfloat16"), "--dtype", "activations in fp32"),
    (("--device", "cuda"), "--device", "over gloo, on cpu"),
    (("--enable-lora",), "--enable-lora", "leave --enable-lora out"),
    (("--speculative-algorithm", "EAGLE"), "--speculative-algorithm", "a draft model"),
    (("--chunked-prefill-size", "512"), "--chunked-prefill-size", "ends at 256 prefill tokens"),
    (("--max-running-requests", "9"), "--max-running-requests", "ends at 8 decode tokens"),
    (("--max-running-requests", "-1"), "--max-running-requests", "a whole number from 1"),
    (("port", "1"), "ARGUMENTS", "begins with --"),
]


@pytest.mark.parametrize("dry", [True, False], ids=["dry run", "launch"])
@pytest.mark.parametrize(("arguments", "field", "words"), REFUSED, ids=[" ".join(case[0]) for case in REFUSED])
@pytest.mark.usefixtures("installed")
def test_arguments_that_the_plan_cannot_live_with_are_refused(
    arguments: tuple[str, ...], field: str, words: str, dry: bool, plan: Path, executed: list[list[str]]
) -> None:
    done = launched(plan, *arguments, dry=dry)
    assert (done.code, done.out, executed) == (2, "", [])
    assert done.err.startswith(f"error: {field}: ") and done.err.count("\n") == 1
    assert words in done.err


@pytest.mark.parametrize("dry", [True, False], ids=["dry run", "launch"])
@pytest.mark.parametrize("model", ["", "no/such/folder", "./model", "a b", "config.json", "/nowhere"])
@pytest.mark.usefixtures("installed")
def test_a_path_without_a_checkpoint_is_refused(model: str, dry: bool, plan: Path, executed: list[list[str]]) -> None:
    if model == "config.json":
        model = str(plan)  # a file
    done = launched(plan, model=model, dry=dry)
    assert (done.code, done.out, executed) == (2, "", [])
    assert done.err.startswith("error: --model-path: ")


@pytest.mark.parametrize("dry", [True, False], ids=["dry run", "launch"])
@pytest.mark.usefixtures("installed")
def test_another_checkpoint_is_refused(dry: bool, plan: Path, tmp_path: Path, executed: list[list[str]]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    done = launched(plan, model=tmp_path, dry=dry)
    assert (done.code, done.out, executed) == (2, "", [])
    assert "model.fingerprint" in done.err
    again = launched(plan, "--model-path", tmp_path, dry=dry)  # the one that SGLang would take
    assert (again.code, again.out, executed) == (2, "", [])
    assert "model.fingerprint" in again.err


@pytest.mark.parametrize("dry", [True, False], ids=["dry run", "launch"])
@pytest.mark.usefixtures("installed")
def test_a_plan_that_sglang_cannot_run_is_refused(dry: bool, tmp_path: Path, executed: list[list[str]]) -> None:
    plan = written(strategy(executor="transformers"), tmp_path / "plan.yaml")
    done = launched(plan, dry=dry)
    assert (done.code, done.out, executed) == (2, "", [])
    assert "--set executor=sglang" in done.err


@pytest.mark.parametrize("dry", [True, False], ids=["dry run", "launch"])
@pytest.mark.parametrize("found", ["0.5.20", "0.6.0"])
def test_another_version_of_sglang_is_refused(
    found: str, dry: bool, plan: Path, executed: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "version", lambda name: found)
    done = launched(plan, dry=dry)
    assert (done.code, done.out, executed) == (2, "", [])
    assert "is tested with SGLang 0.5.23" in done.err and found in done.err


@pytest.mark.skipif(HAS_SGLANG, reason="this environment has SGLang")
@pytest.mark.parametrize("dry", [True, False], ids=["dry run", "launch"])
def test_without_sglang_it_says_where_to_install_commplan(dry: bool, plan: Path, executed: list[list[str]]) -> None:
    done = launched(plan, dry=dry)
    assert (done.code, done.out, executed) == (2, "", [])
    assert "SGLang 0.5.23 is not installed beside commplan; in SGLang's environment: pip install . in" in done.err


@pytest.mark.parametrize("dry", [True, False], ids=["dry run", "launch"])
@pytest.mark.usefixtures("installed")
def test_a_plan_for_devices_that_are_not_there_is_refused(
    dry: bool, tmp_path: Path, executed: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    plan = written(strategy(), tmp_path / "plan.yaml", hardware=HardwareStamp("h200-2", "nccl", "0" * 16))
    done = launched(plan, dry=dry)
    assert (done.code, done.out, executed) == (2, "", [])
    assert "torch sees no CUDA device" in done.err
    assert launched(plan, "--nnodes", "2", "--node-rank", "0", dry=dry).code == 0  # part of them are elsewhere


def test_what_the_plan_needs_passes_its_own_checks() -> None:
    for file in (
        strategy(),
        strategy(hardware=HardwareStamp("h200-8", "nccl", "0" * 16)),
        strategy(parallelism=Parallelism(4, 2)),
    ):
        check_line(file, server_command(file, "owner/model")[4:], {})


def test_chunks_of_dp_groups_are_counted_as_sglang_divides_them() -> None:
    file = strategy(parallelism=Parallelism(2, 2))
    check_line(file, server_command(file, "m", ["--chunked-prefill-size", "256"])[4:], {})


def test_arguments_are_read_as_argparse_reads_them() -> None:
    words = ["--tp", "2", "--enable-lora", "--cuda-graph-bs-decode", "1", "2", "--port=1", "--port", "2", "--x", "-1"]
    wanted = {"tp_size": "2", "enable_lora": True, "cuda_graph_bs_decode": ["1", "2"], "port": "2", "x": "-1"}
    assert typed(words) == wanted
