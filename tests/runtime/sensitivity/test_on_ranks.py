"""Real ranks beside the emulated ones; the commands, end to end."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")

from commplan.planner.cli import commplan  # noqa: E402
from commplan.planner.strategy.errors import CommplanError  # noqa: E402
from commplan.planner.strategy.file import Op  # noqa: E402
from commplan.runtime.sensitivity.emulated_ranks import EmulatedRanks  # noqa: E402
from commplan.runtime.sensitivity.measure import perturbed  # noqa: E402

from ..transformers.tiny_models import write_checkpoint  # noqa: E402
from .ranks import logits_rank  # noqa: E402
from .tiny_texts import TEXT, add_tokenizer  # noqa: E402

PINS = "numerics.pin=[{boundary: mlp_out, op: int8_all_reduce}, {boundary: attn_out, op: int8_all_reduce}]"


def run(*arguments):
    """The output of a command; its error is raised."""
    found = CliRunner().invoke(commplan, [str(each) for each in arguments])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found


def plan(checkpoint, output, *texts):
    overrides = [part for text in texts for part in ("--set", text)]
    model = f"model={checkpoint / 'config.json'}"
    return run("plan", "qwen3-0.6b-cpu-tp2", "--set", model, *overrides, "-o", output)


@pytest.fixture
def checkpoint(tmp_path):
    return add_tokenizer(write_checkpoint("llama", tmp_path / "llama"))


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text(TEXT)
    return file


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen3", "deepseek_v3"])
def test_int8_sums_on_two_ranks_are_those_that_one_process_emulates(tmp_path, world, family):
    from transformers import AutoModelForCausalLM

    checkpoint, file = write_checkpoint(family, tmp_path / family), tmp_path / "plan.yaml"
    plan(checkpoint, file, "numerics.loosest=quantized", PINS)
    algorithm = "two_shot" if "two_shot" in file.read_text() else "gather"
    ids = torch.randint(0, 131, (1, 24), generator=torch.Generator().manual_seed(5))
    ranks = torch.tensor(world(2).run(logits_rank, str(checkpoint), str(file), ids.tolist())[0])
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    emulated = EmulatedRanks(model, 2)
    with torch.no_grad():
        exact = model(ids).logits
        with emulated.with_sums(emulated.everywhere(perturbed(Op("int8_all_reduce", algorithm=algorithm)))):
            found = model(ids).logits
    assert (found - exact).norm() > 20 * (found - ranks).norm()  # but for values that round the other way


@pytest.mark.slow
def test_a_measurement_goes_on_where_it_was_interrupted_and_ends_the_same(tmp_path, checkpoint, text, monkeypatch):
    output = tmp_path / "sensitivity.yaml"
    asked = ("sensitivity", checkpoint, "--text", text, "--window", 32, "--tokens", 64, "--wire", "int4/32")
    run(*asked, "-o", tmp_path / "whole.yaml")

    from commplan.runtime.sensitivity.record import Record

    add = Record.add

    def add_two(self, place, result):
        if len(self.known) == 2:
            raise KeyboardInterrupt
        add(self, place, result)

    monkeypatch.setattr(Record, "add", add_two)
    CliRunner().invoke(commplan, [str(each) for each in (*asked, "-o", output)], standalone_mode=False)
    monkeypatch.setattr(Record, "add", add)
    assert not output.exists()
    assert len(json.loads((tmp_path / "sensitivity.yaml.partial").read_text())["places"]) == 2
    found = run(*asked, "-o", output)
    assert "2 sums are known" in found.output
    assert output.read_text() == (tmp_path / "whole.yaml").read_text()
    assert not (tmp_path / "sensitivity.yaml.partial").exists()


@pytest.mark.slow
def test_a_plan_under_a_perplexity_budget_is_checked_on_real_ranks(tmp_path, checkpoint, text):
    measured, file = tmp_path / "sensitivity.yaml", tmp_path / "plan.yaml"
    run(
        "sensitivity",
        checkpoint,
        "--text",
        text,
        "-o",
        measured,
        "--window",
        32,
        "--tokens",
        64,
        "--wire",
        "int8/token",
    )
    of_file = (f"numerics.sensitivity={measured}", "numerics.loosest=quantized")
    printed = plan(checkpoint, file, *of_file, "numerics.perplexity_budget=0.05", PINS).output
    assert "4 of 4 sums quantised, perplexity +" in printed
    assert "of +5.00% allowed" in " ".join(printed.split())
    found = run(
        "check", file, "--model", checkpoint, "--perplexity", text, "--max-tokens", 32, "--text-tokens", 64, "--json"
    )
    told = json.loads(found.output[found.output.index("{") :])["perplexity"]
    assert told["passed"] and told["budget"] == 0.05
    assert abs(told["rise"]) < 0.05
    assert told["predicted"] is not None


def refused(*arguments):
    found = CliRunner().invoke(commplan, [str(each) for each in arguments])
    assert isinstance(found.exception, CommplanError), found.output
    return str(found.exception)


def test_what_cannot_be_measured_is_refused_before_anything_is_written(tmp_path, checkpoint, text):
    output, empty, folder = tmp_path / "out.yaml", tmp_path / "empty.txt", tmp_path / "folder"
    empty.write_text(" \n")
    folder.mkdir()
    ask = ("-o", output, "--window", 32)
    assert "is empty" in refused("sensitivity", checkpoint, "--text", empty, *ask)
    assert "no such file" in refused("sensitivity", checkpoint, "--text", tmp_path / "none.txt", *ask)
    assert "a window is 4096" in refused("sensitivity", checkpoint, "--text", text, "-o", output, "--window", 4096)
    assert "checkpoint directory is expected" in refused("sensitivity", folder, "--text", text, *ask)
    assert "no such format" in refused("sensitivity", checkpoint, "--text", text, *ask, "--wire", "int3/64")
    assert "cannot be cut for 7 ranks" in refused("sensitivity", checkpoint, "--text", text, *ask, "--ranks", 7)
    assert not output.exists()
    assert not (tmp_path / "out.yaml.partial").exists()


def test_a_loss_that_is_no_number_is_refused(tmp_path, checkpoint, text):
    from safetensors.torch import load_file, save_file

    weights = load_file(checkpoint / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    assert "not a number" in refused(
        "sensitivity", checkpoint, "--text", text, "-o", tmp_path / "out.yaml", "--window", 32
    )


def test_results_of_another_measurement_are_not_gone_on_with(tmp_path, checkpoint, text):
    (tmp_path / "out.yaml.partial").write_text('{"about": {"model": "another"}, "exact": 1.0, "places": {}}')
    asked = ("sensitivity", checkpoint, "--text", text, "-o", tmp_path / "out.yaml", "--window", 32)
    assert "holds results of another model" in refused(*asked)
