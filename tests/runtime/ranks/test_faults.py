"""When one rank fails or differs, every other one ends with an error that says where or what, and no process stays."""

from __future__ import annotations

import multiprocessing
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from commplan.planner.strategy.file import CommplanError, Parallelism, StrategyFile
from commplan.runtime.ranks import spawning

from ..legal_plans import preferring
from ..strategy_files import from_plans, world_of
from ..transformers.tiny_models import write_checkpoint
from ..world import RankWorld
from . import faults

pytestmark = pytest.mark.slow
SHARDED, WHOLE = ("reduce_scatter", "all_gather"), ("all_reduce", "all_gather")
PATIENCE_S = 30.0  # for ranks that notice a fault by themselves, on busy cores too


@pytest.fixture(autouse=True)
def grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks that notice nothing are ended after this."""
    monkeypatch.setattr(spawning, "_GRACE_S", PATIENCE_S)


def file_of(folder: Path, p: Parallelism, preferred: tuple[str, ...]) -> StrategyFile:
    plan = preferring(world_of(folder, p), (preferred,) * 2)
    return from_plans(folder, p, plan, plan)


def errors_of(function: Callable[..., Any], folder: Path, *args: Any, ranks: int = 2) -> dict[int, str]:
    """What each rank ended with; all processes must be gone."""
    with pytest.raises(CommplanError) as raised:
        spawning.run_ranks(function, ranks, *args, timeout_s=300.0)
    assert not any(is_running(pid) for pid in pids(folder, ranks))
    if not isinstance(raised.value, spawning.RankError):
        return dict.fromkeys(range(ranks), str(raised.value))
    assert str(raised.value).count("\n  rank ") == len(raised.value.by_rank)
    return raised.value.by_rank


def pids(folder: Path, ranks: int) -> list[int]:
    found = [int(path.read_text()) for path in folder.glob("pid-*")]
    assert len(found) == ranks
    return found


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("preferred", [SHARDED, WHOLE], ids=["sharded", "all_reduce"])
def test_a_rank_killed_in_a_forward_ends_the_other_at_the_boundary_it_stood_at(
    preferred: tuple[str, ...], checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    folder = checkpoint("qwen3")
    said = errors_of(faults.killed, tmp_path, str(folder), file_of(folder, Parallelism(2), preferred), str(tmp_path))
    assert "exit code -9" in said[faults.FAULTY]
    assert said[0].startswith(f"layer 1 mlp_out ({preferred[0]}): ")


def test_a_rank_killed_between_forwards_ends_the_other_at_the_start_of_the_next(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    folder = checkpoint("qwen3")
    file = file_of(folder, Parallelism(2), WHOLE)
    said = errors_of(faults.gone_between_forwards, tmp_path, str(folder), file, str(tmp_path))
    assert said[0].startswith("start of the forward: another rank is gone or stuck")


def test_a_rank_that_raises_ends_the_other_at_the_boundary_it_stood_at(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    folder = checkpoint("qwen3")
    said = errors_of(faults.raising, tmp_path, str(folder), file_of(folder, Parallelism(2), WHOLE), str(tmp_path))
    assert "no paper left" in said[faults.FAULTY]
    assert said[0].startswith("layer 1 mlp_out (all_reduce): ")


def test_a_rank_killed_beside_two_dp_groups_ends_all_others(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder = checkpoint("qwen3")
    file = file_of(folder, Parallelism(4, 2), WHOLE)
    said = errors_of(faults.killed, tmp_path, str(folder), file, str(tmp_path), ranks=4)
    assert "exit code -9" in said.pop(faults.FAULTY)
    assert set(said) == {0, 2, 3}
    for text in said.values():
        assert text.startswith(("layer 1 mlp_out (all_reduce", "layer 1 mlp_in (all_gather", "layer 1 attn_out"))


def test_a_stuck_rank_ends_the_other_after_the_timeout(
    checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spawning, "_GRACE_S", 5.0)  # the stuck rank never notices
    folder = checkpoint("qwen3")
    file = file_of(folder, Parallelism(2), WHOLE)
    said = errors_of(faults.stuck, tmp_path, str(folder), file, str(tmp_path), 20.0)
    assert said[0].startswith("layer 1 mlp_out (all_reduce): ")
    assert said[faults.FAULTY] == "did not end in time"


def test_a_port_that_something_else_listens_on_ends_all_ranks_with_its_address(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    folder = checkpoint("qwen3")
    file = file_of(folder, Parallelism(2), WHOLE)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = errors_of(faults.starts_on_one_port, tmp_path, str(folder), [file], port, str(tmp_path), 5.0)
    assert set(said) == {0, 1}
    assert all(text.startswith("start: ") and str(port) in text for text in said.values()), said


def test_two_starts_on_one_port_all_end(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder = checkpoint("qwen3")
    file = file_of(folder, Parallelism(2), WHOLE)
    port = free_port()
    said = errors_of(faults.starts_on_one_port, tmp_path, str(folder), [file, file], port, str(tmp_path), 10.0, ranks=4)
    assert len(said) >= 2
    assert all(text.startswith("start: ") for text in said.values()), said
    assert any(str(port) in text for text in said.values())


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_ranks_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    parent = multiprocessing.get_context("spawn").Process(target=faults.parent_of_waiting_ranks, args=(str(tmp_path),))
    parent.start()
    try:
        _until(lambda: len(list(tmp_path.glob("pid-*"))) == 2)
    finally:
        parent.kill()
        parent.join()
    _until(lambda: not any(is_running(pid) for pid in pids(tmp_path, 2)))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


def _until(condition: Callable[[], bool], within_s: float = 300.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {within_s:.0f} s")
        time.sleep(0.1)


# ---- ranks that were given different things --------------------------------------------------------------------------


def test_ranks_with_different_files_all_refuse_and_end(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder = checkpoint("qwen3")
    files = [file_of(folder, Parallelism(2), preferred) for preferred in (SHARDED, WHOLE)]
    said = errors_of(faults.files_of_their_own, tmp_path, str(folder), files, str(tmp_path))
    for text in said.values():
        assert text.startswith("plan: the ranks were started with different values: rank 0: ")
    assert set(said) == {0, 1}


@pytest.mark.parametrize("content", ["schema: commplan/strategy/v1\nmodel:", ""], ids=["truncated", "empty"])
def test_a_damaged_file_on_one_rank_is_told_by_all(
    content: str, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    folder, damaged = checkpoint("qwen3"), tmp_path / "damaged.yaml"
    damaged.write_text(content)
    files = [file_of(folder, Parallelism(2), WHOLE), str(damaged)]
    said = errors_of(faults.files_of_their_own, tmp_path, str(folder), files, str(tmp_path))
    assert said[1].startswith(f"{damaged}:")
    assert said[0] == f"start: rank 1 cannot go on: {said[1]}"


@pytest.mark.parametrize("other", [Parallelism(2, 2), Parallelism(4), Parallelism(2, 1, 2)], ids=str)
def test_a_file_for_other_ranks_on_one_rank_is_refused_on_all(
    other: Parallelism, checkpoint: Callable[..., Path], world: Callable[[int], RankWorld]
) -> None:
    folder = checkpoint("qwen3_moe")
    files = [file_of(folder, p, WHOLE) for p in (Parallelism(2), other)]
    said = world(2).run(faults.refusals_of, [str(folder)] * 2, files)
    reason = "different values" if other.tp == 2 else "this start has 2 ranks; start as many as the plan has"
    assert all(reason in text for text in said), said


def test_a_fault_that_one_rank_alone_finds_is_told_by_all(
    checkpoint: Callable[..., Path], world: Callable[[int], RankWorld], tmp_path: Path
) -> None:
    folder, other = checkpoint("qwen3"), checkpoint("qwen2")
    file = file_of(folder, Parallelism(2), WHOLE)
    said = world(2).run(faults.refusals_of, [str(folder), str(other)], [file, file])
    assert all("Qwen2ForCausalLM" in text for text in said), said
    said = world(2).run(faults.refusals_of, [str(folder)] * 2, [file, replace(file, executor="sglang")])
    assert all("sglang" in text for text in said), said
    without_weights = tmp_path / "without weights"
    without_weights.mkdir()
    (without_weights / "config.json").write_bytes((folder / "config.json").read_bytes())
    said = world(2).run(faults.refusals_of, [str(folder), str(without_weights)], [file, file])
    assert all("no file named model.safetensors" in text for text in said), said


@pytest.mark.parametrize("size", [2, 4])
def test_a_rank_with_another_file_other_weights_or_a_damaged_header_ends_all(
    size: int, checkpoint: Callable[..., Path], world: Callable[[int], RankWorld], tmp_path: Path
) -> None:
    folder = checkpoint("qwen3")
    file, other = (file_of(folder, Parallelism(size), preferred) for preferred in (WHOLE, SHARDED))
    last = size - 1

    def said(folders: list[Path], files: list[StrategyFile]) -> list[str]:
        found: list[str] = world(size).run(faults.refusals_of, [str(folder) for folder in folders], files)
        return found

    found = said([folder] * size, [file] * last + [other])
    assert all(text.startswith("plan: the ranks were started with different values") for text in found), found

    retrained = write_checkpoint("qwen3", tmp_path / "retrained", seed=99)
    found = said([folder] * last + [retrained], [file] * size)
    assert all(text.startswith("weights: the ranks were started with different values") for text in found), found

    damaged = Path(shutil.copytree(folder, tmp_path / "damaged"))
    weights = damaged / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:9] + b"\xff" + content[10:])
    found = said([folder] * last + [damaged], [file] * size)
    assert found[last].startswith(f"{weights}: not a safetensors file that can be read: ")
    assert found[:last] == [f"start: rank {last} cannot go on: {found[last]}"] * last


def test_options_that_change_what_ranks_exchange_must_be_equal(
    checkpoint: Callable[..., Path], world: Callable[[int], RankWorld]
) -> None:
    folder = checkpoint("qwen3")
    file = file_of(folder, Parallelism(2), WHOLE)
    said = world(2).run(faults.refusals_with, str(folder), file, {"agree": [True, False]})
    assert said == 2 * ["agree: the ranks were started with different values: rank 0: True, rank 1: False"]


def test_a_switch_to_different_plans_is_refused_on_all(
    checkpoint: Callable[..., Path], world: Callable[[int], RankWorld]
) -> None:
    folder = checkpoint("qwen3")
    whole, shards = (file_of(folder, Parallelism(2), preferred) for preferred in (WHOLE, SHARDED))
    said = world(2).run(faults.switched, str(folder), whole, [whole, shards])
    assert all(text.startswith("plan: the ranks were started with different values") for text in said), said
    assert world(2).run(faults.switched, str(folder), whole, [shards, shards]) == 2 * ["switched"]


@pytest.mark.parametrize(
    ("modes", "lengths", "where"),
    [
        (["prefill", "prefill"], [5, 6], "rank 0: (0, 2, 5, 10), rank 1: (0, 2, 6, 12)"),
        (["prefill", "decode"], [1, 1], "rank 0: (0, 2, 1, 2), rank 1: (2, 2, 1, 2)"),
    ],
    ids=["token count", "mode"],
)
def test_ranks_that_bring_different_forwards_all_say_so_and_can_go_on(
    modes: list[str], lengths: list[int], where: str, checkpoint: Callable[..., Path], world: Callable[[int], RankWorld]
) -> None:
    folder = checkpoint("qwen3")
    file = file_of(folder, Parallelism(2), WHOLE)
    for text in world(2).run(faults.disagreement, str(folder), file, modes, lengths):
        assert "the ranks disagree" in text
        assert text.endswith(where)
