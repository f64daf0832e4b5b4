"""`make bench-quality` on a tiny model: whole, and on from where it was interrupted."""

from __future__ import annotations

import importlib
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


@pytest.mark.slow
def test_every_format_and_budget_is_measured_on_three_ranks_once(tmp_path, bench, monkeypatch, capsys):
    checkpoint = add_tokenizer(write_checkpoint("llama", tmp_path / "llama", **SHAPE))
    given = bench.options(["--seen", "64", "--fresh", "64", "--formats", "int8/token", "int6/64"])
    page = bench.measured(checkpoint, TEXT, tmp_path, given, window=32)
    for name in ("plain", *bench.ON_RANKS):
        assert f"| {name} |" in page
    assert "| plain | 2.000 | 0.000 % | 0.000 % |" in page.replace("-0.000", "0.000")
    assert page.count("| 0.500 % |") == 1
    assert " read 64 tokens under " in capsys.readouterr().err

    import on_ranks

    monkeypatch.setattr(on_ranks, "TIMEOUT_S", 0.0)  # no rank could start
    assert bench.measured(checkpoint, TEXT, tmp_path, given, window=32) == page
    assert "read" not in capsys.readouterr().err
