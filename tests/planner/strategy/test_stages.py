"""Pipeline stages divide the layers; a plan still names every layer, and its file says how many stages there are."""

from __future__ import annotations

import pytest

from commplan.planner.answers.to_file import plan_setup
from commplan.planner.answers.validation import validate
from commplan.planner.descriptions.loader import load_setup
from commplan.planner.strategy.errors import InputError
from commplan.planner.strategy.file import dump, load, parse
from commplan.planner.strategy.file.legality import walk
from commplan.planner.strategy.layout import Parallelism

TWO_NODES = "deepseek-r1-2xh200nodes-tp16"


def sizes(pp: int, layers: int) -> list[int]:
    return [len(stage) for stage in Parallelism(1, pp=pp).stages(layers)]


@pytest.mark.parametrize(
    ("pp", "layers", "expected"),
    [
        (1, 61, [61]),
        (2, 61, [31, 30]),
        (4, 61, [15, 15, 16, 15]),
        (4, 62, [15, 16, 16, 15]),
        (4, 63, [16, 16, 16, 15]),
        (4, 64, [16, 16, 16, 16]),
        (3, 3, [1, 1, 1]),
    ],
)
def test_what_is_left_over_goes_to_the_middle_as_vllm_divides_layers(pp, layers, expected):
    assert sizes(pp, layers) == expected


@pytest.mark.parametrize("layers", range(1, 40))
def test_every_layer_is_in_one_stage_and_stages_differ_by_one_layer_at_most(layers):
    for pp in range(1, layers + 1):
        stages = Parallelism(1, pp=pp).stages(layers)
        assert [layer for stage in stages for layer in stage] == list(range(layers))
        assert max(sizes(pp, layers)) - min(sizes(pp, layers)) <= 1
        ends = [layer for layer in range(layers) if Parallelism(1, pp=pp).ends_stage(layer, layers)]
        assert ends == [stage[-1] for stage in stages[:-1]]


@pytest.fixture(scope="module")
def staged():
    text = dump(plan_setup(load_setup(TWO_NODES, ("parallelism.tp=8", "parallelism.pp=2"))))
    return parse(text)


def test_a_file_says_its_stages_and_names_every_layer(staged):
    assert "moe_backend: tensor_parallel, pp: 2}" in dump(staged)
    assert parse(dump(staged)) == staged
    assert all(len(plan.layers) == 61 for ranges in staged.modes.values() for plan in ranges)


def test_one_stage_is_not_written_and_older_files_have_one(staged):
    one = dump(staged).replace(", pp: 2}", "}")
    assert parse(one).parallelism == Parallelism(8)
    assert parse(one.replace("tensor_parallel}", "tensor_parallel, pp: 1}")).parallelism == Parallelism(8)
    assert dump(parse(one)) == one


@pytest.mark.parametrize(("pp", "why"), [("62", "more stages than the 61 layers"), ("0", "from 1 is expected")])
def test_stages_that_cannot_be_are_refused(staged, pp, why):
    with pytest.raises(InputError, match=why) as error:
        parse(dump(staged).replace("pp: 2}", f"pp: {pp}}}"))
    assert error.value.field == "parallelism.pp"


def test_the_streams_may_be_handed_on_in_any_layout(staged):
    """A shard goes on to the rank that has the same shard, so nothing has to be gathered before."""
    handed = {
        after.hidden
        for ranges in staged.modes.values()
        for plan in ranges
        for layer, boundary, _, _, after in walk(staged, plan)
        if boundary == "mlp_out" and layer is not None and staged.layer_shape(layer).ends_stage
    }
    assert handed == {"replicated", "token_sharded"}


def test_no_kernel_at_the_end_of_a_stage_does_the_norm_of_a_layer_that_is_elsewhere(staged, tmp_path):
    ends = {plan.layers[30].mlp_out.impl for plan in staged.modes["prefill"]}
    within = {plan.layers[29].mlp_out.impl for plan in staged.modes["prefill"]}
    assert "commplan_triton_norm" in within and "commplan_triton_norm" not in ends
    path = tmp_path / "plan.yaml"
    path.write_text(dump(staged).replace(", pp: 2}", ", pp: 3}"))  # layer 30 and others are inside stages now
    found = validate(path)
    assert found and all("the norm of the next layer too" in problem.reason for problem in found)
    path.write_text(dump(staged))
    assert validate(path) == [] and load(path) == staged


def test_an_executor_that_has_no_stages_makes_the_file_illegal(staged, tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(dump(staged).replace("executor: plan_only", "executor: sglang"))
    assert any(p.field == "parallelism.pp" and "sglang runs plans of one stage" in p.reason for p in validate(path))
