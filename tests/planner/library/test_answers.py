"""The library answers what the commands answer, in Python's words."""

from __future__ import annotations

import csv
from fractions import Fraction
from pathlib import Path

import pytest

import commplan
from commplan.planner.strategy.files import one_command

from ..cli.commandline import answer, run

TINY, GPU = "qwen3-0.6b-cpu-tp2", "deepseek-r1-h20-tp8"


@pytest.fixture(scope="module")
def plan() -> commplan.Plan:
    return commplan.plan(GPU)


@pytest.fixture(scope="module")
def file(plan: commplan.Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plans") / "strategy.yaml"
    plan.save(path)
    return path


# ---- a plan ----------------------------------------------------------------------------------------------------------


def test_a_plan_is_what_the_command_plans(plan: commplan.Plan) -> None:
    told = answer("plan", GPU)
    assert (plan.hash, plan.memory, list(plan.modes)) == (told["hash"], told["memory"], list(told["modes"]))
    for row, shown in zip(plan.to_records(), [r for ranges in told["modes"].values() for r in ranges], strict=True):
        assert [row["first"], row["last"]] == shown["tokens"]
        assert row["best_stock_flag"] == (shown["best_stock_flag"] and shown["best_stock_flag"]["name"])
        for name in ("step_us", "stock_us", "library_us", "all_reduce_us", "worst_loss", "source", "host_wait_us"):
            assert row[name] == shown[name]


def test_a_plan_is_saved_as_the_command_writes_it(plan: commplan.Plan, file: Path, tmp_path: Path) -> None:
    assert run("plan", GPU, "-o", tmp_path / "by_command.yaml").code == 0
    assert file.read_bytes() == (tmp_path / "by_command.yaml").read_bytes()
    assert plan.text() == file.read_text()


def test_overrides_are_fields_with_values_or_texts() -> None:
    by_value = commplan.plan(TINY, set={"numerics.loosest": "quantized", "limits.activation_memory_gb": Fraction(7, 2)})
    by_text = commplan.plan(TINY, set=["numerics.loosest=quantized", "limits.activation_memory_gb=3.5"])
    assert by_value.text() == by_text.text() != commplan.plan(TINY).text()


def test_numbers_of_numpy_are_numbers() -> None:
    numpy = pytest.importorskip("numpy")
    tp, tokens = numpy.array([2]), numpy.arange(1, 3)
    assert commplan.what_if(TINY, vary={"tp": tp, "tokens": tokens}).points[0].values == {"tp": 2, "tokens": 1}
    plan = commplan.plan(TINY, set={"parallelism.tp": tp[0]})
    assert plan.step_us("decode", tokens[1]) == plan.step_us("decode", 2)


def test_a_step_is_priced_at_every_token_count(plan: commplan.Plan) -> None:
    ends = {each.last: each.step_us for each in plan.ranges("prefill")}
    assert {tokens: plan.step_us("prefill", tokens) for tokens in ends} == ends
    assert plan.step_us("prefill", 1000) < plan.step_us("prefill", 2000)


def test_the_op_at_a_boundary_is_the_files(plan: commplan.Plan) -> None:
    found = plan.at("prefill", 4096)
    assert found.at("attn_out", 3) == "reduce_scatter(impl=commplan_triton_norm)"
    assert found.at("head_in") == "all_gather(impl=commplan_triton)"
    rows = found.to_records()
    assert len(rows) == 4 * 61 + 2
    assert [row["op"] for row in rows if row["layer"] == 3] == [
        *("latent_all_gather", "reduce_scatter", "all_gather", "reduce_scatter")
    ]


def test_what_does_not_fit_is_said_at_a_glance(plan: commplan.Plan) -> None:
    assert not plan.fits
    assert "does not fit" in repr(plan)
    assert "does not fit" in plan._repr_html_()
    with pytest.raises(commplan.DoesNotFitError):
        commplan.plan(GPU, require_fit=True)


def test_notes_are_told_and_kept() -> None:
    told: list[str] = []
    link = {"hardware.links.intra_node.bandwidth_gb_per_s": 100}
    plan = commplan.plan(GPU, set=link, on_note=told.append)
    assert told == list(plan.notes)
    assert "overridden" in told[0]


# ---- a file ----------------------------------------------------------------------------------------------------------


def test_a_file_knows_all_that_the_plan_knows(plan: commplan.Plan, file: Path) -> None:
    for loaded in (commplan.load(file), commplan.load(file, deployment=GPU)):
        assert loaded.hash == plan.hash
        assert loaded.at("decode", 100).to_records() == plan.at("decode", 100).to_records()
        assert loaded.step_us("decode", 100) == plan.step_us("decode", 100)
        assert loaded.memory == plan.memory
        assert loaded.at("prefill", 4096).trust == plan.at("prefill", 4096).trust
        assert loaded.explain(layer=12).to_records() == plan.explain(layer=12).to_records()


def test_a_file_knows_what_was_overridden(tmp_path: Path) -> None:
    link = {"hardware.links.intra_node.bandwidth_gb_per_s": 100}
    slow = commplan.plan(GPU, set=link)
    slow.save(tmp_path / "slow.yaml")
    assert commplan.load(tmp_path / "slow.yaml").step_us("prefill", 100) == slow.step_us("prefill", 100)
    rows = slow.explain(layer=12).to_records()
    assert rows == commplan.explain(strategy=slow, layer=12).to_records()
    assert rows == commplan.explain(strategy=tmp_path / "slow.yaml", layer=12).to_records()


def test_a_file_of_what_has_changed_is_priced_where_that_is_asked_for_and_says_so(file: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.yaml"
    mark = commplan.load(file).strategy.hardware.fingerprint
    old.write_text(file.read_text().replace(mark, "0123456789abcdef"))
    loaded = commplan.load(old)
    assert loaded.step_us("prefill", 656) == pytest.approx(63638.9)
    for ask in (lambda: loaded.step_us("prefill", 655), loaded.explain, lambda: loaded.memory, lambda: loaded.fits):
        with pytest.raises(commplan.InputError, match=r"the hardware has changed .* load\(path, deployment=\.\.\.\)"):
            ask()
    told: list[str] = []
    assert commplan.load(old, deployment=GPU, on_note=told.append).step_us("prefill", 655) > 0
    assert "the hardware has changed" in told[0]


def test_a_file_for_another_executor_is_priced_by_it(tmp_path: Path) -> None:
    commplan.plan(GPU, set={"executor": "sglang"}).save(tmp_path / "sglang.yaml")
    assert commplan.load(tmp_path / "sglang.yaml").setup.executor.name == "sglang"


def test_a_file_beside_another_deployment_is_refused(file: Path) -> None:
    with pytest.raises(commplan.InputError, match="made for DeepSeek-R1, not for this deployment's Qwen3-32B"):
        commplan.load(file, deployment="qwen3-32b-h200-tp2")


def test_validation_is_true_where_the_command_says_legal(file: Path, tmp_path: Path) -> None:
    assert commplan.validate(file)
    spoiled = tmp_path / "spoiled.yaml"
    spoiled.write_text(
        file.read_text().replace("head_in: {all_gather: {impl: commplan_triton}}", "head_in: {slice: {}}")
    )
    found = commplan.validate(spoiled)
    assert not found
    told = run("validate", spoiled, "--json").json["files"][0]["errors"]
    assert [tuple(row.values()) for row in found.to_records()] == [tuple(each.values()) for each in told]
    assert repr(found).startswith(f"<commplan.Validation {spoiled}: illegal, {told[0]['field']}: ")


# ---- why -------------------------------------------------------------------------------------------------------------


def test_an_explanation_is_the_commands(plan: commplan.Plan) -> None:
    told = answer("explain", GPU, "--layer", 12, "--op", "int8_all_reduce")
    found = commplan.explain(GPU, layer=12, op="int8_all_reduce")
    rows = found.to_records()
    assert [row["slower_by_us"] for row in rows] == [told["chosen"]["slower_by_us"]] + [
        each["slower_by_us"] for each in told["alternatives"]
    ]
    assert (rows[0]["chosen"], rows[0]["time_us"]) == (True, told["chosen"]["time_us"])
    assert (found.first, found.last, found.place) == (657, 16384, "layer 12 attn_out")
    assert plan.explain(layer=12, op="int8_all_reduce").to_records() == rows


def test_a_plan_at_hand_is_explained_as_its_file(plan: commplan.Plan, file: Path) -> None:
    by_plan, by_file = (commplan.explain(GPU, strategy=each, mode="decode") for each in (plan, file))
    assert by_plan.to_records() == by_file.to_records()


# ---- what if ---------------------------------------------------------------------------------------------------------


def test_a_sweeps_records_are_the_rows_of_its_csv_file(tmp_path: Path) -> None:
    table = tmp_path / "sweep.csv"
    vary = {"tp": [2, 3], "tokens": "64..256:x2"}
    assert run("what-if", TINY, "--vary", "tp=2,3", "--vary", "tokens=64..256:x2", "--csv", table).code == 0
    rows = commplan.what_if(TINY, vary=vary).to_records()
    with open(table, encoding="utf-8") as stream:
        written = list(csv.DictReader(stream))
    assert [{k: "" if v is None else str(v) for k, v in row.items()} for row in rows] == written
    assert {row["legal"] for row in rows} == {True, False}


def test_a_sweep_answers_what_the_command_answers() -> None:
    told, found = answer("what-if", TINY), commplan.what_if(TINY)
    assert [each.question for each in found.answers] == [each["question"] for each in told["answers"]]
    assert [c.tokens for _, c in found.crossovers] == [each["tokens"] for each in told["crossovers"]]
    assert list(found.notes) == told["notes"]
    assert [point.tokens for point in found.points] == [point["tokens"] for point in told["points"]]


def test_progress_is_called_as_tqdm_is() -> None:
    seen: list[object] = []

    def bar(points, total):
        seen.append(total)
        yield from points

    assert len(commplan.what_if(TINY, vary={"tokens": range(1, 4)}, progress=bar).points) == 3
    assert seen == [3]


# ---- errors and glances ----------------------------------------------------------------------------------------------

REFUSED = {
    "no preset": (lambda: commplan.plan("deepseek-r1"), "deployment: no preset of that name; did you mean"),
    "no field": (lambda: commplan.plan(TINY, set={"tp": 2}), "set: tp: no such field; did you mean 'parallelism.tp'?"),
    "no value": (lambda: commplan.plan(TINY, set={"parallelism.tp": object()}), "set: parallelism.tp: a number, text"),
    "no overrides": (lambda: commplan.plan(TINY, set=5), "set: fields with their values are expected"),
    "a sign": (lambda: commplan.plan(TINY, set={"a=b": 5}), "set: field: a field is named as in parallelism.tp"),
    "no name": (lambda: commplan.plan(" "), "a name or path is expected"),
    "no mode": (lambda: commplan.explain(TINY, mode="x"), "mode: the deployment has no such mode"),
    "no count": (lambda: commplan.explain(TINY, tokens=1.5), "tokens: a whole number from 1 to"),
    "no layer": (lambda: commplan.explain(TINY, layer="x"), "layer: a whole number is expected"),
    "no such layer": (lambda: commplan.explain(TINY, layer=99), "layer: the model's layers are 0-27"),
    "no op": (lambda: commplan.explain(TINY, op="x"), "op: no such op; accepted: "),
    "no values": (lambda: commplan.what_if(TINY, vary={"tp": []}), "vary: tp: no value is given"),
    "a word": (lambda: commplan.what_if(TINY, vary={"tp": ["x"]}), "vary: tp: a plain number is expected"),
    "twice": (lambda: commplan.what_if(TINY, vary=["tp=1", "tp=2"]), "vary: tp: is varied twice"),
    "no file": (lambda: commplan.load("no.yaml"), "no.yaml: no such file"),
    "no folder": (lambda: commplan.plan(TINY).save("no/such/folder.yaml"), "no/such/folder.yaml: cannot be written"),
    "no such mode": (lambda: commplan.plan(TINY).at("prefil", 1), "mode: the plan has no such mode; did you mean 'pre"),
    "no such count": (lambda: commplan.plan(TINY).at("decode", 10**6), "tokens: decode is planned for 1 to"),
    "no boundary": (lambda: commplan.plan(TINY).at("decode", 1).at("attn", 1), "boundary: no boundary of this name"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_raised_in_the_words_of_the_call(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    ask, words = REFUSED[name]
    with pytest.raises(commplan.CommplanError) as raised:
        ask()
    assert str(raised.value).startswith(words)
    assert "--" not in str(raised.value)
    assert capsys.readouterr() == ("", "")


def test_within_a_command_an_error_names_the_option() -> None:
    with one_command(), pytest.raises(commplan.InputError, match=r"^--set: tp: no such field"):
        commplan.plan(TINY, set={"tp": 2})


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    plan = commplan.plan(GPU, set={"hardware.links.intra_node.bandwidth_gb_per_s": 100})
    _ = plan.memory, plan.at("decode", 1).trust, plan.explain().to_records()
    _ = commplan.what_if(TINY, vary={"tp": [3]}).answers, commplan.validate("no such file")
    assert capsys.readouterr() == ("", "")


def test_every_answer_is_one_short_line_and_one_table(plan: commplan.Plan, file: Path) -> None:
    explained, swept = plan.explain(), commplan.what_if(GPU, vary={"tokens": [64, 1024], "tp": [8, 3]})
    for each in (plan, commplan.load(file), *plan.ranges(), explained, swept, commplan.validate(file)):
        text, html = repr(each), each._repr_html_()
        assert text.startswith(f"<commplan.{type(each).__name__} ")
        assert "\n" not in text
        assert len(text) < 300
        assert html.count("<table>") == html.count("</table>") == 1
    for inner in (explained.chosen, *explained.alternatives, *swept.points):
        assert len(repr(inner)) < 400


def test_html_escapes_what_files_hold(tmp_path: Path) -> None:
    spoiled = tmp_path / "<script>.yaml"
    spoiled.write_text("schema: <script>alert(1)</script>\n")
    html = commplan.validate(spoiled)._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
