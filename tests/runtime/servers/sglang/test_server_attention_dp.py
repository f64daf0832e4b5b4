"""Servers with attention DP, in DP groups of two ranks and of one: planned ops in place of SGLang's own pairs."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from commplan.planner.strategy.file import StrategyFile, problems
from commplan.runtime.servers.executed import calls, change, differences

from .plans import (
    EVERY_PAIR,
    FOLDED,
    GATHER_SCATTER,
    GATHER_SUM,
    QUANTISED_GROUPS,
    ZERO_BUFFER,
    groups,
    plan,
    written,
)
from .questions import Stock
from .questions import logprobs as prompt_logprobs
from .server import STAND_INS, Server, refused, serving

pytestmark = pytest.mark.slow

TWO_GROUPS = ("--attn-dp-size", "2")
SABOTEUR = Path(__file__).parent / "saboteur"
SHORT, LONG, CHUNKED = list(range(5, 15)), list(range(7, 47)), [94 - n % 90 for n in range(600)]
SIX = [list(range(start, start + 9)) for start in range(30, 90, 10)]  # at once: three for each DP group
APART = [(list(range(10 + 7 * n, 30 + 9 * n)), 12 + n) for n in range(5)]  # prompts, with how many tokens follow


def of_two_ranks(model: Path) -> StrategyFile:
    """Each rank a DP group: nothing is left to sum behind attention."""
    return plan(
        model,
        attn_dp=2,
        prefill=[groups(1, 24, GATHER_SUM, 1), groups(25, 256, GATHER_SCATTER, 1)],
        decode=[groups(1, 2, GATHER_SCATTER, 1), groups(3, 8, GATHER_SUM, 1)],
    )


def of_four_ranks(model: Path) -> StrategyFile:
    """Two groups of two: every pair of the layouts, in layers of their own."""
    return plan(
        model,
        tp=4,
        attn_dp=2,
        prefill=[groups(1, 24, ZERO_BUFFER), groups(25, 256, EVERY_PAIR)],
        decode=[groups(1, 4, EVERY_PAIR), groups(5, 8, FOLDED)],
    )


@dataclass(frozen=True)
class Said:
    """Tokens for prompts alone, in chunks, at once, and one after the other while earlier ones still decode."""

    tokens: list[list[int]]
    logprobs: list[float]


def ask(server: Server) -> Said:
    """The same questions to every server."""
    tokens = [server.generate(prompt)["output_ids"] for prompt in (SHORT, LONG, CHUNKED)]
    tokens += [answer["output_ids"] for answer in server.generate(SIX, 16)]
    return Said(tokens + apart(server), logprobs(server))


def apart(server: Server) -> list[list[int]]:
    """Requests that start while others decode: one DP group prefills beside another that decodes."""
    answers = []
    with ThreadPoolExecutor(len(APART)) as threads:
        for prompt, new_tokens in APART:
            answers.append(threads.submit(server.generate, prompt, new_tokens))
            time.sleep(0.1)
        return [answer.result()["output_ids"] for answer in answers]


def logprobs(server: Server) -> list[float]:
    """Of every token of a prompt but the first, and of the tokens that follow."""
    meta = server.generate(list(range(9, 49)), return_logprob=True, logprob_start_len=0)["meta_info"]
    return [row[0] for row in [*meta["input_token_logprobs"][1:], *meta["output_token_logprobs"]]]


def assert_ran_as_planned(strategy: StrategyFile, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
    ran = [change(old, new) for old, new in zip(before, after, strict=True)]
    assert len(ran) == strategy.parallelism.tp
    assert [differences(strategy, rank) for rank in after] == [[]] * len(ran)
    assert [differences(strategy, rank) for rank in ran] == [[]] * len(ran)
    counted = [
        [(told["mode"], told["range"], told["forwards"], told["rows"]) for told in rank["forwards"]] for rank in ran
    ]
    assert counted == [counted[0]] * len(ran)
    assert {(mode, index) for mode, index, *_ in counted[0]} == {
        ("prefill", 0), ("prefill", 1), ("decode", 0), ("decode", 1)
    }  # fmt: skip
    # One request at a time leaves the other DP group without rows.
    assert sum(told["idle"] for rank in ran for told in rank["forwards"]) > 0


def off(found: Said, expected: Said) -> float:
    return max(abs(a - b) for a, b in zip(found.logprobs, expected.logprobs, strict=True))


def test_dp_groups_of_one_rank(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    model = checkpoint("qwen3_moe")
    with serving(model, tmp_path, None, TWO_GROUPS) as server:
        expected = ask(server)
    check(of_two_ranks(model), model, expected, tmp_path)


@pytest.fixture(scope="module")
def of_groups_of_two(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """A model, and what a server without a plan says in two groups of two ranks."""
    model = checkpoint("deepseek_v3")
    with serving(model, tmp_path_factory.mktemp("without"), None, TWO_GROUPS, tp=4) as server:
        return model, ask(server)


def test_dp_groups_of_two_ranks(of_groups_of_two: tuple[Path, Said], tmp_path: Path) -> None:
    model, expected = of_groups_of_two
    check(of_four_ranks(model), model, expected, tmp_path)


def check(strategy: StrategyFile, model: Path, expected: Said, folder: Path) -> None:
    """Tokens are those without a plan, ops are those of the plan."""
    assert list(problems(strategy)) == []
    path, tp = written(strategy, folder / "plan.yaml"), strategy.parallelism.tp
    with serving(model, folder, path, TWO_GROUPS, tp) as server:
        before = server.counts()
        found = ask(server)
        after = server.counts()
    assert found.tokens == expected.tokens
    assert off(found, expected) < 1e-4
    assert_ran_as_planned(strategy, before, after)


def test_int8_sums_move_logprobs_a_little(
    stock: Callable[[str], Stock], checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """Of a dense model: where experts are chosen, INT8 can change the choice, and then logprobs jump."""
    model = checkpoint("qwen3")
    expected = Said([], stock("qwen3").logprobs)  # of plain TP 2, which differs by the order of sums alone
    strategy = plan(
        model,
        "quantized",
        tp=4,
        attn_dp=2,
        prefill=[groups(1, 256, QUANTISED_GROUPS)],
        decode=[groups(1, 8, ZERO_BUFFER)],
    )
    with serving(model, tmp_path, written(strategy, tmp_path / "int8.yaml"), TWO_GROUPS, tp=4) as server:
        found = Said([], prompt_logprobs(server))
        ranks = server.counts()
    assert [differences(strategy, rank) for rank in ranks] == [[]] * 4
    assert {"int8_all_reduce(algorithm=gather, group=attn_tp)", "int8_all_reduce(algorithm=two_shot, group=tp)"} < {
        op[3] for op in calls(ranks[0])
    }
    assert 1e-5 < off(found, expected) < 0.2


def test_a_hook_that_sglang_could_not_place_ends_the_server(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    model = checkpoint("qwen3")
    file = written(of_two_ranks(model), tmp_path / "plan.yaml")
    sabotage = {"PYTHONPATH": f"{SABOTEUR}:{STAND_INS}", "SABOTAGE": "hook"}
    code, output = refused(model, tmp_path, file, TWO_GROUPS, variables=sabotage)
    assert code != 0
    assert "commplan: error: sglang.srt.layers.layer_boundary.exit.ExitPolicy._decide: " in output
