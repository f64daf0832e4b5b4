"""`--set FIELD=VALUE` reaches any field of the deployment, the model and the hardware, and refuses everything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from .commandline import answer, refused, run

SMALL = "qwen3-0.6b-cpu-tp2"
R1 = "deepseek-r1-h20-tp8"
LINK = "hardware.links.intra_node"
PRESET = Path(__file__).parents[3] / "configs" / "hardware" / "h200-2.yaml"


@pytest.mark.parametrize("text", ["", "tp", "=4", "parallelism..tp=4", ".tp=4", "parallelism.=4", " =4"])
def test_a_text_without_field_or_value_is_refused(text: str) -> None:
    error = refused("plan", SMALL, f"--set={text}")
    assert (error["field"], error["value"]) == ("--set", text)
    assert "FIELD=VALUE" in error["message"]


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        ("parallelism.tp.size=4", "parallelism.tp.size", "'tp' holds a plain value"),
        ("name.short=x", "name.short", "'name' holds a plain value"),
        ("model.hidden_size.x=1", "model.hidden_size.x", "'hidden_size' holds a plain value"),
        ("hardware.name.x=1", "hardware.name.x", "'name' holds a plain value"),
        ("parallelism.tp=[2", "parallelism.tp", "not valid YAML"),
        ("parallelism.tp=&a 2", "parallelism.tp", "anchors"),
        ("parallelism.tp=!!int 2", "parallelism.tp", "tags"),
        ("parallelism={tp: 2, tp: 4}", "parallelism", "duplicate key"),
    ],
)
def test_a_text_that_cannot_be_applied_is_refused(text: str, field: str, message: str) -> None:
    error = refused("plan", SMALL, f"--set={text}")
    assert (error["file"], error["field"]) == ("--set", field)
    assert message in error["message"]


@pytest.mark.parametrize(
    ("text", "field", "value", "message"),
    [
        ("parallelism.tp=", "parallelism.tp", None, "an empty value; write null for none"),
        ("limits.activation_memory_gb= ", "limits.activation_memory_gb", None, "an empty value; write null for none"),
        ("parallelism.tp=four", "parallelism.tp", "four", "a plain number"),
        ("parallelism.tpp=4", "parallelism.tpp", None, "'tp'"),
        ("paralelism.tp=4", "paralelism", None, "'parallelism'"),
        ("modes.prefill.tokens=[8]", "modes.prefill.tokens", "[8]", "[min, max]"),
        ("modes.prefill.tokens[0]=8", "modes.prefill.tokens[0]", None, "'tokens'"),
        ("modes.prefil.tokens=[1, 8]", "modes.prefil", None, "'prefill'"),
        (
            LINK + ".bandwith_gb_per_s=9",
            LINK + ".bandwith_gb_per_s",
            None,
            "bandwidth",
        ),
        (
            LINK + ".bandwidth_gb_per_s=fast",
            LINK + ".bandwidth_gb_per_s.value",
            "fast",
            "plain",
        ),
        (
            LINK + ".bandwidth_gb_per_s=-9",
            LINK + ".bandwidth_gb_per_s.value",
            -9,
            "than 0",
        ),
        (
            LINK + ".bandwidth_gb_per_s=1e-300",
            LINK + ".bandwidth_gb_per_s.value",
            1e-300,
            "1e-12",
        ),
        (
            LINK + ".latency_us=1e300",
            LINK + ".latency_us.value",
            1e300,
            "less than",
        ),
        (
            LINK + ".efficiency=1.5",
            LINK + ".efficiency.value",
            1.5,
            "less than or equal to 1",
        ),
        (LINK + ".topology=ring", LINK + ".topology", "ring", "'full_mesh'"),
        ("hardware.links.intra_node=3", "hardware.links.intra_node", 3, "a mapping"),
        ("hardware.links=fast", "hardware.links", "fast", "a mapping"),
        ("hardware.num_nodes=2", "links.inter_node", None, "num_nodes is 2"),
        ("hardware.calibrations=[{file: no-such-table}]", "hardware.calibrations[0].file", "no-such-table", "accepted"),
        ("model.num_hidden_layers=0", "model.num_hidden_layers", 0, "greater than 0"),
        ("model.num_hidden_layers=10001", "model.num_hidden_layers", 10001, "10000"),
        ("model.num_key_value_heads=3", "model.num_key_value_heads", 3, "num_attention_heads 16"),
        ("model.dense_layers=[28]", "model.dense_layers", 28, "0-27"),
        ("model.tie_word_embeddings=maybe", "model.tie_word_embeddings", "maybe", "true or false"),
        ("model.kv_lora_rank=512", "qk_nope_head_dim", None, "missing"),
    ],
)
def test_a_value_that_its_file_would_not_accept_is_refused(text: str, field: str, value: Any, message: str) -> None:
    error = refused("plan", SMALL, f"--set={text}")
    assert (error["field"], error["value"]) == (field, value)
    assert message in error["message"]
    if field.removesuffix(".value") == text.partition("=")[0]:
        assert error["file"] == "--set"


def test_more_experts_for_a_token_than_there_are_is_refused() -> None:
    error = refused("what-if", R1, "--set=model.num_experts_per_tok=1000", "--vary=tokens=64")
    assert (error["field"], error["value"]) == ("model.num_experts_per_tok", 1000)
    assert "num_experts 256" in error["message"]


def test_a_field_named_without_its_section_is_found() -> None:
    error = refused("plan", SMALL, "--set=tp=4")
    assert (error["file"], error["field"]) == ("--set", "tp")
    assert "'parallelism.tp'" in error["message"]


@pytest.mark.slow
def test_an_overridden_link_says_that_its_tables_are_scaled_and_the_same_value_keeps_them() -> None:
    link = f"{LINK}.bandwidth_gb_per_s"
    same = yaml.safe_load(PRESET.read_text())["links"]["intra_node"]["bandwidth_gb_per_s"]["value"]
    assert answer("plan", "qwen3-32b-h200-tp2", f"--set={link}={same}") == answer("plan", "qwen3-32b-h200-tp2")
    changed = ("qwen3-32b-h200-tp2", f"--set={link}={same + 1}")
    for command in ("plan", "explain"):
        (note,) = answer(command, *changed)["notes"]
        assert note.startswith(f"{link} is overridden: ") and "tables measured on h200-2 are scaled" in note
        assert f"note: {note}\n" in run(command, *changed).err
    assert note in answer("what-if", *changed, "--tokens=8", "--vary=mode=decode")["notes"]


def test_a_link_a_little_slower_makes_no_step_shorter() -> None:
    """Without its tables the same link was priced by formulas, which are faster."""
    own, slower = (
        [ranges[-1]["all_reduce_us"] for ranges in answer("plan", R1, f"--set={rate}")["modes"].values()]
        for rate in (f"{LINK}.bandwidth_gb_per_s=450", f"{LINK}.bandwidth_gb_per_s=440")
    )
    assert all(a < b < 1.03 * a for a, b in zip(own, slower, strict=True))


def test_a_latency_says_where_borrowed_tables_do_not_go_by_it(tmp_path: Path) -> None:
    """Machines with tables of their own scale them; one that borrows has the bandwidth alone."""
    deployment, override = "qwen3-32b-h200-tp2", ("--set", f"{LINK}.latency_us=9")
    assert not any("borrowed tables" in note for note in answer("plan", deployment, *override)["notes"])
    sheet = {"name": "b9-8", "vendor": "nvidia", "memory-gb": 192, "memory-gb-per-s": 8000, "bf16-tflops": 2250}
    link = {"link": "switch", "link-gb-per-s": 900, "devices-per-node": 8}
    given = [text for name, value in (sheet | link).items() for text in (f"--{name}", value)]
    answer("init", "hardware", *given, "-o", tmp_path / "b9-8.yaml")
    notes = answer("plan", deployment, "--set", f"hardware={tmp_path / 'b9-8.yaml'}", *override)["notes"]
    assert any(f"{LINK}.latency_us: of formulas alone" in note for note in notes)


def test_a_link_between_nodes_leaves_the_tables_inside_a_node_alone() -> None:
    far = "hardware.links.inter_node.bandwidth_gb_per_s"
    assert answer("plan", "deepseek-r1-2xh200nodes-tp16", f"--set={far}=20")["notes"] == []


@pytest.mark.parametrize(("text", "field"), [("foo.bar=4", "foo"), ("modes.verify.tokens=[1,2]", "modes.verify")])
def test_a_section_that_is_there_by_an_override_is_blamed_on_it(text: str, field: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text((PRESET.parents[1] / "deployments" / f"{SMALL}.yaml").read_text())
    error = refused("plan", mine, "--set", text)
    assert (error["file"], error["line"], error["field"]) == ("--set", None, field)


def test_a_rule_for_no_mode_is_refused() -> None:
    error = refused("plan", SMALL, "--set", "numerics.pin=[{op: all_reduce, boundary: mlp_out, modes: []}]")
    assert error["field"] == "numerics.pin[0].modes"


def test_a_later_override_wins() -> None:
    once = answer("plan", SMALL, "--set=parallelism.tp=1")
    assert answer("plan", SMALL, "--set=parallelism.tp=4", "--set=parallelism.tp=1") == once
    assert answer("plan", SMALL, "--set= parallelism.tp = 1") == once


def test_an_overridden_figure_is_assumed_and_says_so() -> None:
    link = f"{LINK}.bandwidth_gb_per_s"
    plan = answer("plan", "qwen3-32b-a2-tp2", f"--set={link}=0.01")
    assert {r["source"] for ranges in plan["modes"].values() for r in ranges} == {"assumed"}


@pytest.mark.slow
def test_a_slower_link_never_makes_a_step_faster() -> None:
    steps = []
    for bandwidth in (1000, 100, 10, 1):
        link = f"--set={LINK}.bandwidth_gb_per_s={bandwidth}"
        ranges = answer("plan", "qwen3-32b-h200-tp2", link)["modes"]["prefill"]
        steps.append(ranges[-1]["step_us"])
    assert steps == sorted(steps)


def test_overrides_can_add_a_mode() -> None:
    work = "{tokens: [1, 8], context_tokens: 64, draft_tokens: 4}"
    plan = answer("plan", SMALL, f"--set=modes.target_verify={work}")
    assert list(plan["modes"]) == ["prefill", "decode", "target_verify"]
