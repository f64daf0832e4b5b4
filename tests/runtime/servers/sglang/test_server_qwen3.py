"""One Qwen3 server under a plan, in the ways that servers are used: chunks, batches, cached prefixes, aborts."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from commplan.planner.strategy.file import StrategyFile
from commplan.runtime.servers.executed import calls, change, differences

from .plans import varied, written
from .questions import BATCH, CHUNKED, PROMPTS, Stock
from .server import Server, serving, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(checkpoint: Callable[[str], Path]) -> Path:
    return checkpoint("qwen3")


@pytest.fixture(scope="module")
def without(stock: Callable[[str], Stock]) -> Stock:
    """What a server without a plan says."""
    return stock("qwen3")


@pytest.fixture(scope="module")
def strategy(model: Path) -> StrategyFile:
    return varied(model)


@pytest.fixture(scope="module")
def server(
    without: Stock, model: Path, strategy: StrategyFile, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("planned")
    with serving(model, folder, written(strategy, folder / "plan.yaml")) as running:
        yield running


Watched = Callable[[Callable[[], Any]], list[dict[str, Any]]]


@pytest.fixture
def watched(server: Server, strategy: StrategyFile) -> Watched:
    """What both ranks have run while something was asked, which must be forwards x plan."""

    def watch(ask: Callable[[], Any]) -> list[dict[str, Any]]:
        before = server.counts()
        ask()
        ran = [change(old, new) for old, new in zip(before, server.counts(), strict=True)]
        assert len(ran) == 2
        assert [differences(strategy, rank) for rank in ran] == [[], []]
        assert ran[0]["forwards"] == ran[1]["forwards"]
        return ran

    return watch


def forwards(ran: list[dict[str, Any]]) -> dict[tuple[str, int], tuple[int, int]]:
    """(mode, range) to forwards and rows."""
    return {(told["mode"], told["range"]): (told["forwards"], told["rows"]) for told in ran[0]["forwards"]}


def ops(ran: list[dict[str, Any]], mode: str, boundary: str) -> dict[int | None, str]:
    """Layer to the op that ran at a boundary."""
    return {layer: op for m, layer, b, op, _ in calls(ran[0]) if (m, b) == (mode, boundary)}


def test_the_log_says_once_which_plan_is_in_force_on_each_rank(server: Server) -> None:
    lines = [line for line in server.log.read_text().splitlines() if "is in force" in line]
    assert len(lines) == 2
    assert all("plan.yaml (" in line and "prefill 17-256: " in line for line in lines)


@pytest.mark.parametrize("name", ["short", "long"])
def test_tokens_are_those_without_a_plan(name: str, server: Server, without: Stock, watched: Watched) -> None:
    said: list[Any] = []
    ran = watched(lambda: said.append(server.generate(PROMPTS[name])))
    assert said[0]["output_ids"] == without.tokens[name]
    which = 0 if len(PROMPTS[name]) <= 16 else 1
    # Health checks of the server itself may run forwards of one token beside ours.
    assert forwards(ran)["prefill", which][0] >= 1
    assert forwards(ran)["decode", 0][0] >= 7


def test_prefill_and_decode_layers_and_ranges_have_ops_of_their_own(server: Server, watched: Watched) -> None:
    ran = watched(lambda: [server.generate(list(range(start, start + 30))) for start in (11, 31)])
    assert ops(ran, "prefill", "attn_out") == {
        0: "reduce_scatter_all_gather", 1: "all_reduce", 2: "reduce_scatter_all_gather", 3: "all_reduce"
    }  # fmt: skip
    assert set(ops(ran, "decode", "attn_out").values()) == {"all_reduce"}
    assert ops(ran, "prefill", "embed_out") == {None: "all_reduce"}


def test_a_long_prompt_runs_in_chunks_of_its_range(server: Server, without: Stock, watched: Watched) -> None:
    said: list[Any] = []
    ran = watched(lambda: said.append(server.generate(CHUNKED)))
    assert said[0]["output_ids"] == without.tokens["chunked"]
    count, rows = forwards(ran)["prefill", 1]
    assert (count, rows) == (3, len(CHUNKED))


def test_requests_at_once_decode_in_the_range_of_their_number(server: Server, without: Stock, watched: Watched) -> None:
    said: list[Any] = []
    ran = watched(lambda: said.extend(server.generate(BATCH)))
    assert [answer["output_ids"] for answer in said] == without.batch
    assert forwards(ran)["decode", 1][0] >= 1
    both = set(ops(ran, "decode", "attn_out").values())
    assert both == {"all_reduce", "reduce_scatter_all_gather"}


def test_a_cached_prefix_leaves_a_short_prefill(server: Server, watched: Watched) -> None:
    prompt = list(range(30, 90))
    first: list[Any] = []
    watched(lambda: first.append(server.generate(prompt)))
    again: list[Any] = []
    ran = watched(lambda: again.append(server.generate(prompt)))
    assert again[0]["output_ids"] == first[0]["output_ids"]
    assert again[0]["meta_info"]["cached_tokens"] > 0
    assert ("prefill", 1) not in forwards(ran)
    assert ("prefill", 0) in forwards(ran)


def test_an_aborted_request_leaves_counts_and_server_in_order(server: Server, without: Stock, watched: Watched) -> None:
    def start_and_abort() -> None:
        thread = threading.Thread(target=_ignoring_errors, args=(server, "to-abort"))
        decoded = forwards_so_far(server)
        thread.start()
        assert wait_until(lambda: forwards_so_far(server) > decoded + 3, 60)
        server.post("/abort_request", {"rid": "to-abort"})
        thread.join(60)
        assert not thread.is_alive()

    ran = watched(start_and_abort)
    assert 3 < forwards(ran)["decode", 0][0] < 1500
    assert server.generate(PROMPTS["short"])["output_ids"] == without.tokens["short"]


def forwards_so_far(server: Server) -> int:
    return sum(told["forwards"] for told in server.counts()[0]["forwards"] if told["mode"] == "decode")


def _ignoring_errors(server: Server, rid: str) -> None:
    try:
        server.generate(list(range(60, 80)), 1500, rid=rid)
    except (urllib.error.URLError, OSError):
        return


def test_commplan_counters_compares_the_server_with_its_plan(server: Server, tmp_path: Path) -> None:
    script = [str(Path(sys.executable).parent / "commplan"), "counters", "--server", server.url]
    done = subprocess.run(script, capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("executed ops: forwards x plan") == 2
    told = json.loads(subprocess.run([*script, "--json"], capture_output=True, check=True, timeout=120).stdout)
    assert told["differences"] == [[], []]
