"""`make bench-quality` on a tiny model, the ranks' losses made up: what is asked, told, and not asked again."""

from __future__ import annotations

import importlib
import json
import math
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from tests.runtime.sensitivity.tiny_texts import TEXT, add_tokenizer  # noqa: E402
from tests.runtime.transformers.tiny_models import write_checkpoint  # noqa: E402

FOLDER = Path(__file__).parents[3] / "benchmarks" / "quality"
SHAPE = {"hidden_size": 192, "num_attention_heads": 3, "num_key_value_heads": 3, "intermediate_size": 192}


@pytest.fixture
def bench(monkeypatch):
    """The benchmark's modules import each other by plain names, as they do when it is run."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("bench")
    for name in ("bench", "formats", "on_ranks", "plans", "smollm2", "texts"):
        sys.modules.pop(name, None)


@pytest.fixture
def checkpoint(tmp_path):
    return add_tokenizer(write_checkpoint("llama", tmp_path / "llama", **SHAPE))


@pytest.fixture
def asked(monkeypatch):
    """The plans that ranks were asked to read under; each rises by a nat, or the ranks end after so many."""
    from commplan.runtime.ranks import spawning

    found: list[str] = []

    def run_ranks(_, ranks, losses, plans, timeout_s):
        assert ranks == 3
        for plan in plans:
            if len(found) == 2:
                found.append("ended")
                raise KeyboardInterrupt
            found.append(Path(plan).stem)
            losses.keep(plan, losses.exact + 1.0)

    monkeypatch.setattr(spawning, "run_ranks", run_ranks)
    return found


@pytest.mark.slow
def test_a_plan_that_was_read_before_the_bench_was_ended_is_not_read_again(tmp_path, bench, checkpoint, asked):
    given = bench.options(["--fresh", "64", "--formats"])
    with pytest.raises(KeyboardInterrupt):
        bench.measured(checkpoint, TEXT, tmp_path, given, window=32)
    page = bench.measured(checkpoint, TEXT, tmp_path, given, window=32)
    assert asked[:3] == ["everywhere-exact", "everywhere-int8-per-token", "ended"]
    assert len(set(asked)) == len(asked) == 2 + len(bench.ON_RANKS)
    assert "| INT8 per token | 1.021 | - | 171.828 % |" in page
    assert "budget" not in page


def made_up_effects(bench, checkpoint, folder):
    """Every sum rises the loss by a thousandth of a nat in INT8 per token, by two in INT6."""
    from commplan.planner.strategy.file import config_fingerprint
    from commplan.runtime.sensitivity.measure import BOUNDARIES, Effect, PlaceResult
    from commplan.runtime.sensitivity.record import sensitivity_text

    config = json.loads((checkpoint / "config.json").read_text())
    layers = config["num_hidden_layers"]
    place = PlaceResult(5.0, 9.0, (Effect(0.01, 0.001, 0.0), Effect(0.03, 0.002, 0.0)))
    about = {"model": str(config_fingerprint(config)), "ranks": 3, "tokens": 64, "window": 32, "text": "x"}
    about |= {"perplexity": 2.0, "loss": 0.7, "dtype": "float32", "method": "none", "versions": "none"}
    ops = bench.FORMATS["INT8 per token"], bench.FORMATS["INT6, groups of 64"]
    file = folder / "sensitivity.yaml"
    known = {(layer, boundary): place for layer in range(layers) for boundary in BOUNDARIES}
    file.write_text(sensitivity_text(known, layers, ops, about))
    return file, layers


@pytest.mark.slow
def test_effects_predict_what_they_know_and_plans_send_fewer_bytes_at_equal_cost(
    tmp_path, bench, checkpoint, asked, monkeypatch
):
    file, layers = made_up_effects(bench, checkpoint, tmp_path)
    monkeypatch.setattr(bench, "effects", lambda *_: file)
    asked += ["none is ended"] * 3
    given = bench.options(["--seen", "64", "--fresh", "64"])
    page = bench.measured(checkpoint, TEXT, tmp_path, given, window=32)
    of_formats, of_budgets, at_equal = page.split("\n\n")[1:]
    assert of_formats.count(" | - | ") == len(bench.ON_RANKS) - 2
    assert f"| INT6, groups of 64 | 0.781 | {math.expm1(0.004 * layers):.3%}".removesuffix("%") in of_formats
    assert of_budgets.count(" %") == 3 * len(bench.BUDGETS)
    assert "| INT8 per token: 171.828 % | 1.021 | 0.781 | 1.31 x |" in at_equal
