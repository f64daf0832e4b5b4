"""A hand edit that stays legal stays loadable; the same edit done by half is refused where the rest was forgotten."""

from __future__ import annotations

import pytest

from commplan.planner.strategy.file import StrategyFile, dump, parse, problems

LATE = "attn_in: {latent_all_gather: {from: previous.mlp_out}}, attn_out: {all_reduce: {residual: fold}}"
PLAIN_11 = "    - {layers: 11, " + LATE + ", mlp_out: all_reduce}"
PLAIN_12 = "    - {layers: 12, attn_out: all_reduce, mlp_out: reduce_scatter}"


def with_layers(text: str, *lines: str, first: int, last: int) -> str:
    """The plan for many tokens, with other lines for the layers first to last."""
    line = next(line for line in text.splitlines() if "layers: 1-60" in line)
    before, after = line.replace("1-60", f"1-{first - 1}"), line.replace("1-60", f"{last + 1}-60")
    return text.replace(line, "\n".join([before, *lines, after]), 1)


def illegal(text: str) -> list[tuple[str, str]]:
    return [(problem.field, problem.reason) for problem in problems(parse(text))]


def ops(strategy: StrategyFile, layer: int) -> list[str]:
    plan = strategy.range_of("prefill", 16384)
    return [str(plan.layers[layer].at(boundary)) for boundary in ("attn_in", "attn_out", "mlp_in", "mlp_out")]


def test_one_layer_goes_from_late_gather_to_plain_all_reduce(r1: str) -> None:
    """Layer 11 leaves complete rows, so layer 12 has nothing to gather and no sharded residual to fold."""
    edited = with_layers(r1, PLAIN_11, PLAIN_12, first=11, last=12)
    assert illegal(edited) == []
    strategy = parse(edited)
    assert ops(strategy, 12) == ["none", "all_reduce", "none", "reduce_scatter"]
    assert ops(strategy, 13) == ops(strategy, 10)
    assert dump(strategy) == edited


def test_the_same_edit_without_the_layer_before_is_refused(r1: str) -> None:
    line = "    - {layers: 12, attn_out: all_reduce, mlp_out: reduce_scatter}"
    ((field, reason),) = illegal(with_layers(r1, line, first=12, last=12))
    assert field == "modes.prefill[1].layers.12.attn_in"
    assert "use all_gather or latent_all_gather" in reason


def test_the_same_edit_without_the_layer_after_is_refused(r1: str) -> None:
    ((field, reason),) = illegal(with_layers(r1, PLAIN_11, first=11, last=11))
    assert field == "modes.prefill[1].layers.12.attn_in"
    assert "latent_all_gather starts from token_sharded rows" in reason


EDITS = {
    "gather hidden rows instead of latents": (
        "attn_in: {latent_all_gather: {from: previous.mlp_out}}",
        "attn_in: all_gather",
    ),
    "gather the residual instead of folding it": ("{all_reduce: {residual: fold}}", "{all_reduce: {residual: gather}}"),
    "sum in two steps": ("{all_reduce: {residual: fold}}", "{reduce_scatter_all_gather: {residual: fold}}"),
    "keep both streams sharded": (
        "attn_out: {all_reduce: {residual: fold}}",
        "attn_out: reduce_scatter, mlp_in: all_gather",
    ),
    "name the backend as impl": ("mlp_out: reduce_scatter", "mlp_out: {reduce_scatter: {impl: nccl}}"),
    "name the group": ("mlp_out: reduce_scatter", "mlp_out: {reduce_scatter: {group: tp}}"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_other_edits_that_stay_legal(edit: str, r1: str) -> None:
    old, new = EDITS[edit]
    line = f"    - {{layers: 20, {LATE}, mlp_out: reduce_scatter}}".replace(old, new)
    assert new in line
    assert illegal(with_layers(r1, line, first=20, last=20)) == []


def test_a_quantised_sum_needs_the_file_to_allow_it_and_cannot_fold(r1: str) -> None:
    def edited(residual: str) -> str:
        op = f"{{int8_all_reduce: {{algorithm: two_shot, residual: {residual}}}}}"
        return with_layers(
            r1,
            f"    - {{layers: 20, {LATE}, mlp_out: reduce_scatter}}".replace("{all_reduce: {residual: fold}}", op),
            first=20,
            last=20,
        )

    ((_, reason),) = illegal(edited("gather"))
    assert "quantized, looser than the reordered" in reason
    assert illegal(edited("gather").replace("numerics: reordered", "numerics: quantized")) == []
    ((_, reason),) = illegal(edited("fold").replace("numerics: reordered", "numerics: quantized"))
    assert "would quantise the folded residual" in reason


def test_ranges_can_be_moved_split_and_left_out(r1: str) -> None:
    moved = r1.replace("[1, 112]", "[1, 500]", 1).replace("[113, 16384]", "[501, 16384]")
    assert illegal(moved) == []
    assert str(parse(moved).range_of("prefill", 500).embed_out) == "all_reduce"
    head, _, tail = r1.partition("  decode:\n")
    assert illegal(head + "end: true\n") == []
    assert illegal(head[: head.index("  prefill:")] + "  decode:\n" + tail) == []
    later = r1.replace("  - tokens: [1, 112]", "  - tokens: [8, 112]", 1)
    assert illegal(later) == []


def test_predictions_and_comments_can_be_left_out_or_added(r1: str) -> None:
    bare = "\n".join(line for line in r1.splitlines() if "predicted" not in line) + "\n"
    assert illegal(bare) == []
    assert illegal("# measured on Tuesday\n" + bare.replace("modes:", "modes:   # both")) == []


def test_attention_dp_layers_can_go_from_fused_to_two_steps(attention_dp: str) -> None:
    """The fused op that ends layer 40 becomes a reduce-scatter, and layer 41 gathers what it no longer finds done."""
    fused = next(line for line in attention_dp.splitlines() if "layers: 1-93, attn_in: fused" in line)
    split = [
        fused.replace("1-93", "1-39"),
        fused.replace("1-93", "40").replace("reduce_scatter_all_reduce", "{reduce_scatter: {group: tp}}"),
        fused.replace("1-93", "41")
        .replace("attn_in: fused", "attn_in: {all_gather: {group: attn_tp}}")
        .replace("{all_reduce: {group: attn_tp}}", "{all_reduce: {group: attn_tp, residual: fold}}"),
        fused.replace("1-93", "42-93"),
    ]
    assert illegal(attention_dp.replace(fused, "\n".join(split), 1)) == []
    half = [split[0], split[1], fused.replace("1-93", "41-93")]
    ((field, reason),) = illegal(attention_dp.replace(fused, "\n".join(half), 1))
    assert field == "modes.prefill[0].layers.41.attn_in"
    assert "second boundary" in reason
