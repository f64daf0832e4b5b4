"""`commplan check` and `commplan run` as processes: exit codes, streams, the time limit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from commplan.planner.strategy.file import Op, Parallelism, StrategyFile, save
from commplan.runtime.transformers import parity
from commplan.runtime.transformers.parity import ModeResult, token_counts

from ..legal_plans import preferring
from ..strategy_files import from_plans, ranges_of, strategy_file, world_of
from ..world import RankWorld

COMMPLAN = Path(sys.executable).parent / "commplan"
SHARDED = ("reduce_scatter", "latent_all_gather", "all_gather")
NONE, AR, RS, AG = Op("none"), Op("all_reduce"), Op("reduce_scatter"), Op("all_gather")
INT8 = Op("int8_all_reduce", algorithm="gather")
Checkpoint = Callable[..., Path]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not COMMPLAN.exists(), reason="the command is not installed beside this Python"),
]


def process(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMPLAN, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )


def sharded_from_nine_tokens(folder: Path) -> StrategyFile:
    """All-reduce up to eight tokens, sharded norms above."""
    small = ranges_of([AR, *([NONE, AR, NONE, AR] * 2), NONE], 1, 8)
    large = ranges_of([RS, *([AG, RS, AG, RS] * 2), AG], 9, 700)
    return strategy_file(folder, Parallelism(2), {"prefill": [small, large], "decode": [small]})


def test_check_of_a_good_plan_exits_with_0_and_names_every_range_edge(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = checkpoint("qwen3")
    save(sharded_from_nine_tokens(folder), tmp_path / "plan.yaml")
    ended = process("check", tmp_path / "plan.yaml", "--model", folder, "--max-tokens", 20)
    assert ended.returncode == 0, ended
    title, prefill, counted, decode, counted_too = ended.stdout.splitlines()
    assert title == "qwen3 on 2 ranks against one process"
    assert prefill.split()[:2] == ["prefill", "ok"]
    assert prefill.endswith("(reordered); 8 forwards at 1, 2, 5, 8, 9, 10, 15, 20 tokens")
    assert decode.split()[:2] == ["decode", "ok"]
    assert counted.strip() == counted_too.strip() == "every op ran as often as the file says"


def test_check_as_json_with_attention_dp(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder, p = checkpoint("deepseek_v3"), Parallelism(2, 2)
    plan = preferring(world_of(folder, p), (SHARDED,) * 2)
    save(from_plans(folder, p, plan, plan), tmp_path / "plan.yaml")
    ended = process("check", tmp_path / "plan.yaml", "--model", folder, "--json", "--max-tokens", 16)
    assert ended.returncode == 0, ended
    modes = json.loads(ended.stdout)["modes"]
    assert [mode["mode"] for mode in modes] == ["prefill", "decode"]
    for mode in modes:
        assert mode["passed"]
        assert mode["max_error"] <= mode["bound"]
        assert mode["miscounted"] == mode["skipped_ranges"] == []


def with_an_outlier_channel(weights: dict[str, Any]) -> None:
    """One channel so large that an INT8 row has no values left for the others; the norms bring it back to size."""
    for layer in range(2):
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            weights[f"model.layers.{layer}.{name}.weight"][0] *= 3e4
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"model.layers.{layer}.{name}.weight"][1:] *= 3e4
    weights["model.norm.weight"][1:] *= 3e4


def with_a_nan(weights: dict[str, Any]) -> None:
    weights["model.layers.1.mlp.down_proj.weight"][3, 3] = float("nan")


def check_of_spoilt(
    spoil: Callable[[dict[str, Any]], None], sums: Op, healthy: Path, folder: Path, *options: str
) -> subprocess.CompletedProcess[str]:
    from safetensors.torch import load_file, save_file

    weights = load_file(healthy / "model.safetensors")
    spoil(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_bytes((healthy / "config.json").read_bytes())
    plan = ranges_of([AR, *([NONE, sums, NONE, sums] * 2), NONE], 1, 16)
    save(strategy_file(folder, Parallelism(2), {"prefill": [plan]}), folder / "plan.yaml")
    return process("check", folder / "plan.yaml", "--model", folder, *options)


def test_check_exits_with_4_where_int8_loses_too_much(checkpoint: Checkpoint, tmp_path: Path) -> None:
    ended = check_of_spoilt(with_an_outlier_channel, INT8, checkpoint("qwen3"), tmp_path, "--json")
    assert ended.returncode == 4, ended
    (mode,) = json.loads(ended.stdout)["modes"]
    assert not mode["passed"]
    assert mode["max_error"] > mode["bound"]
    assert mode["miscounted"] == []


def test_check_exits_with_4_where_logits_are_not_numbers(checkpoint: Checkpoint, tmp_path: Path) -> None:
    ended = check_of_spoilt(with_a_nan, AR, checkpoint("qwen3"), tmp_path)
    assert ended.returncode == 4, ended
    assert ended.stdout.splitlines()[1].split()[:5] == ["prefill", "FAILED", "max", "logit", "error"]
    assert "inf, allowed" in ended.stdout


def miscounting(checkpoint: str, path: str) -> list[ModeResult]:
    """A check whose executor forgets one call of one op."""
    from commplan.runtime.bound import counts

    honest = counts.Counters.calls
    counts.Counters.calls = (
        lambda self: {  # type: ignore[method-assign]
            key: calls - (key[1:3] == (1, "mlp_out")) for key, calls in honest(self).items()
        }
    )
    try:
        return parity.check_rank(checkpoint, path, 0, 4)
    finally:
        counts.Counters.calls = honest  # type: ignore[method-assign]


def test_an_op_that_ran_less_often_than_planned_fails_the_check(
    checkpoint: Checkpoint, world: Callable[[int], RankWorld], tmp_path: Path
) -> None:
    folder = checkpoint("qwen3")
    save(sharded_from_nine_tokens(folder), tmp_path / "plan.yaml")
    for results in world(2).run(miscounting, str(folder), str(tmp_path / "plan.yaml")):
        for result in results:
            assert not result.passed
            assert any(f"'{result.mode}', 1, 'mlp_out', 'all_reduce', 'gloo'" in text for text in result.miscounted)
        (text,) = results[0].miscounted
        assert text.endswith("ran 3 times, planned 4")
        assert results[0].skipped == [(9, 700)]


def test_token_counts_hit_both_ends_of_every_range(checkpoint: Checkpoint) -> None:
    file = sharded_from_nine_tokens(checkpoint("qwen3"))
    assert token_counts(file, "prefill") == [1, 2, 5, 8, 9, 10, 261, 512]
    assert token_counts(file, "prefill", 700)[-1] == 700
    assert token_counts(file, "prefill", 8) == [1, 2, 5, 8]


def test_bad_input_exits_with_2_and_one_line(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = checkpoint("qwen3")
    file = sharded_from_nine_tokens(folder)
    save(replace(file, executor="sglang"), tmp_path / "sglang.yaml")
    save(file, tmp_path / "plan.yaml")
    (tmp_path / "cut.yaml").write_text((tmp_path / "plan.yaml").read_text()[:-20])
    for arguments in (
        ["check", tmp_path / "cut.yaml", "--model", folder],
        ["check", tmp_path / "sglang.yaml", "--model", folder],
        ["check", tmp_path / "plan.yaml", "--model", checkpoint("qwen2")],
        ["check", tmp_path / "plan.yaml"],
        ["run", tmp_path / "plan.yaml", "--model", folder],
        ["run", tmp_path / "plan.yaml", "--model", folder, "--tokens", "1,x"],
        ["run", tmp_path / "plan.yaml", "--model", folder, "--tokens", "1,5000"],
        ["run", tmp_path / "plan.yaml", "--model", folder, "--prompt", "no tokenizer here"],
        ["run", tmp_path / "plan.yaml", "--model", folder, "--tokens", "1,2", "--max-new-tokens", "0"],
    ):
        ended = process(*arguments)
        assert (ended.returncode, ended.stdout) == (2, ""), (arguments, ended)
        assert "Traceback" not in ended.stderr
        assert [line for line in ended.stderr.splitlines() if line.lower().startswith("error: ")], ended


def test_ranks_that_take_too_long_are_ended_and_named(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = checkpoint("qwen3")
    save(sharded_from_nine_tokens(folder), tmp_path / "plan.yaml")
    ended = process("check", tmp_path / "plan.yaml", "--model", folder, "--timeout", "0.2")
    assert ended.returncode == 4
    assert "error: 2 of 2 ranks failed:\n  rank 0: did not end in time\n  rank 1: did not end in time" in ended.stderr


# ---- run -------------------------------------------------------------------------------------------------------------


def test_run_generates_what_one_process_generates_by_the_planned_ops(checkpoint: Checkpoint, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    folder = checkpoint("qwen3")
    save(sharded_from_nine_tokens(folder), tmp_path / "plan.yaml")
    given = [5, 3, 11, 80, 42, 7, 7, 19, 101, 2]
    arguments = ["run", tmp_path / "plan.yaml", "--model", folder, "--tokens", ",".join(map(str, given))]
    ended = process(*arguments, "--max-new-tokens", 5, "--json")
    assert ended.returncode == 0, ended
    answer = json.loads(ended.stdout)
    alone = AutoModelForCausalLM.from_pretrained(folder).eval()
    wanted = alone.generate(torch.tensor([given]), max_new_tokens=5, do_sample=False, pad_token_id=0)
    assert answer["tokens"] == wanted[0].tolist()
    assert answer["text"] is None
    assert ["prefill", "mlp_out reduce_scatter", 2] in answer["ops"]
    assert ["decode", "mlp_out all_reduce", 8] in answer["ops"]


def test_run_goes_on_from_a_text_where_there_is_a_tokenizer(checkpoint: Checkpoint, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({f"w{n}": n for n in range(131)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(tmp_path)
    for path in checkpoint("qwen3").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    save(sharded_from_nine_tokens(checkpoint("qwen3")), tmp_path / "plan.yaml")
    ended = process("run", tmp_path / "plan.yaml", "--model", tmp_path, "--prompt", "w5 w3 w11", "--max-new-tokens", 3)
    assert ended.returncode == 0, ended
    said = ended.stdout.split()
    assert said[:3] == ["w5", "w3", "w11"]
    assert len(said) == 6
    assert "2 x mlp_out all_reduce (prefill)" in ended.stderr


# ---- torchrun --------------------------------------------------------------------------------------------------------

# The ranks share one unbuffered standard output, so each writes what it generated to a file of its own.
PROGRAM = """
import os, sys, pathlib, torch
from commplan.runtime import load_model
rank = int(os.environ["RANK"])
executor = load_model(sys.argv[1], sys.argv[2 + rank], timeout_s=60.0)
tokens = executor.generate(torch.tensor([[5, 3, 11]]), max_new_tokens=2, do_sample=False, pad_token_id=0)
pathlib.Path(sys.argv[0] + f".{rank}").write_text(str(tokens.tolist()))
"""


def under_torchrun(folder: Path, program: Path, *plans: Path) -> subprocess.CompletedProcess[str]:
    program.write_text(PROGRAM)
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc-per-node=2",
            "--standalone",
            program,
            folder,
            *plans,
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_a_program_under_torchrun_executes_a_plan(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = checkpoint("qwen3")
    save(sharded_from_nine_tokens(folder), tmp_path / "plan.yaml")
    ended = under_torchrun(folder, tmp_path / "program.py", tmp_path / "plan.yaml", tmp_path / "plan.yaml")
    assert ended.returncode == 0, ended.stderr
    said = [json.loads((tmp_path / f"program.py.{rank}").read_text()) for rank in range(2)]
    assert said[0] == said[1]
    assert said[0][0][:3] == [5, 3, 11]
    assert len(said[0][0]) == 5


def test_a_rank_under_torchrun_with_another_tp_ends_all_with_one_reason(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = checkpoint("qwen3")
    file = sharded_from_nine_tokens(folder)
    save(file, tmp_path / "plan.yaml")
    save(replace(file, parallelism=Parallelism(4)), tmp_path / "other.yaml")
    ended = under_torchrun(folder, tmp_path / "program.py", tmp_path / "plan.yaml", tmp_path / "other.yaml")
    assert ended.returncode != 0
    # Whichever rank says it first: torchrun ends the other at once.
    assert "parallelism.tp: this start has 2 ranks; start as many as the plan has" in ended.stderr
