"""A strategy file with one field spoiled is refused with the field, the value and the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from commplan.planner.strategy.errors import InputError
from commplan.planner.strategy.file import load

STOCK = "stock_us: 1.0, stock_source: table, library_us: 1.0"
PREFILL, SECOND = "modes.prefill[0]", "modes.prefill[1]"
PLAIN = "{layers: 0-60, attn_out: all_reduce, mlp_out: all_reduce}"
LATE = (
    "{layers: 1-60, attn_in: {latent_all_gather: {from: previous.mlp_out}}, "
    "attn_out: {all_reduce: {residual: fold}}, mlp_out: reduce_scatter}"
)

NOT_WELL_FORMED = [
    ("commplan/strategy/v1", "commplan/strategy/v2", "schema", "another version of commplan"),
    ("commplan/strategy/v1", "commplan/strategy", "schema", "not a commplan strategy file"),
    ("schema: commplan/strategy/v1\n", "", "schema", "commplan/strategy/v1"),
    ("executor: transformers\n", "", "executor", "missing"),
    ("executor: transformers\n", "executor: 3\n", "executor", "a text"),
    ("executor: transformers\n", "executor: transformers\nexecuter: x\n", "executer", "'executor'"),
    ("numerics: reordered", "numerics: loose", "numerics", "exact"),
    ("role: target", "role: teacher", "model.role", "draft"),
    ("hidden_size: 7168", "hidden_size: '7168'", "model.hidden_size", "a whole number"),
    ("hidden_size: 7168", "hidden_size: 0", "model.hidden_size", "a whole number"),
    ("latent_width: 2112", "latent_width: -1", "model.latent_width", "a whole number"),
    ("num_hidden_layers: 61", "num_hidden_layers: 60", "model.moe_layers", "0-59"),
    ("num_hidden_layers: 61", "num_hidden_layers: 62", f"{PREFILL}.layers", "layer 61 of 62"),
    ("num_hidden_layers: 61", "num_hidden_layers: 999999999", "model.num_hidden_layers", "a whole number"),
    ("moe_layers: 3-60", "moe_layers: 3-61", "model.moe_layers", "0-60"),
    ("moe_layers: 3-60", "moe_layers: 60-3", "model.moe_layers", "0-60"),
    ("moe_layers: 3-60", "moe_layers: '0-60,0-60'", "model.moe_layers", "twice"),
    ("moe_layers: 3-60", "moe_layers: [3, 4]", "model.moe_layers", "0-2,5"),
    ("moe_layers: 3-60", "moe_layers: three", "model.moe_layers", "0-2,5"),
    ("fingerprint: ", "fingerprin: ", "model.fingerprin", "'fingerprint'"),
    ("backend: nccl", "backend: null", "hardware.backend", "a text"),
    ("activations: bf16, ", "", "deployment.activations", "missing"),
    ("{tp: 8,", "{tp: 8.0,", "parallelism.tp", "a whole number"),
    ("{tp: 8,", "{tp: 0,", "parallelism.tp", "a whole number"),
    ("attn_dp: 1", "attn_dp: 3", "parallelism.attn_dp", "does not divide tp 8"),
    ("ep: 1", "ep: 16", "parallelism.ep", "does not divide tp 8"),
    ("moe_backend: tensor_parallel", "moe_backend: deepep", "parallelism.moe_backend", "all_to_all"),
    ("  prefill:", "  prefil:", "modes.prefil", "'prefill'"),
    ("  prefill:", "  idle:", "modes.idle", "no such forward mode"),
    ("[1, 112]", "[1]", f"{PREFILL}.tokens", "[min, max]"),
    ("[1, 112]", "[112, 1]", f"{PREFILL}.tokens", "above max"),
    ("[1, 112]", "[0, 112]", f"{PREFILL}.tokens", "positive"),
    ("[1, 112]", "[1, 112.5]", f"{PREFILL}.tokens", "whole"),
    ("[1, 112]", "[true, 112]", f"{PREFILL}.tokens", "whole"),
    (PLAIN, "0-60", f"{PREFILL}.layers[0]", "a mapping"),
    ("layers: 0-60", "layers: 0-61", f"{PREFILL}.layers[0].layers", "0-60"),
    ("layers: 0-60", "layers: 0-59", f"{PREFILL}.layers", "layer 60 of 61"),
    ("layers: 0-60", "layers: 1-60", f"{PREFILL}.layers", "layer 0 of 61"),
    ("layers: 0-60", "layers: all", f"{PREFILL}.layers[0].layers", "0-2,5"),
    ("layers: 0-60", "layers: '٠-٦٠'", f"{PREFILL}.layers[0].layers", "0-2,5"),
    ("layers: 0-60, ", "", f"{PREFILL}.layers[0].layers", "0-2,5"),
    (LATE, LATE.replace("1-60", "0-60"), f"{SECOND}.layers[1].layers", "layer 0 stands in two runs"),
    ("attn_out: all_reduce", "attn_ot: all_reduce", f"{PREFILL}.layers[0].attn_ot", "'attn_out'"),
    ("attn_out: all_reduce", "attn_out: allreduce", f"{PREFILL}.layers[0].attn_out", "'all_reduce'"),
    ("attn_out: all_reduce", "attn_out: null", f"{PREFILL}.layers[0].attn_out", "a name"),
    ("attn_out: all_reduce", "attn_out: [all_reduce]", f"{PREFILL}.layers[0].attn_out", "a name"),
    ("attn_out: all_reduce", "attn_out: {all_reduce: {}, none: {}}", f"{PREFILL}.layers[0].attn_out", "one name"),
    ("attn_out: all_reduce", "attn_out: {all_reduce: fold}", f"{PREFILL}.layers[0].attn_out", "parameters"),
    (
        "attn_out: all_reduce",
        "attn_out: {all_reduce: {rule: fold}}",
        f"{PREFILL}.layers[0].attn_out.all_reduce.rule",
        "group",
    ),
    ("attn_out: all_reduce", "attn_out: int8_all_reduce", f"{PREFILL}.layers[0].attn_out", "algorithm"),
    ("residual: fold", "residual: fould", f"{SECOND}.layers[0].attn_out.all_reduce.residual", "'fold'"),
    (
        "head_in: all_gather",
        "head_in: {all_gather: {residual: fold}}",
        f"{SECOND}.head_in.all_gather.residual",
        "no parameter",
    ),
    ("head_in: all_gather", "head_in: {slice: {group: tp}}", f"{SECOND}.head_in.slice.group", "takes no parameters"),
    ("{tokens: 112,", "{tokens: 0,", f"{PREFILL}.predicted.tokens", "a whole number"),
    ("worst_loss: ", "worst_loss: -", f"{PREFILL}.predicted.worst_loss", "not negative"),
    ("step_us: ", "step_us: 0 # ", None, ""),
    ("all_reduce_us: ", "all_reduce_us: -", f"{PREFILL}.predicted.all_reduce_us", "a positive number"),
    ("worst_loss: ", "worst_loss: .nan # ", None, "not valid YAML"),
    (
        "best_uniform: {strategy",
        "best_uniform: {strategie",
        f"{PREFILL}.predicted.best_uniform.strategie",
        "'strategy'",
    ),
    ("best_uniform: ", "stock_us: 1.0, best_uniform: ", f"{PREFILL}.predicted.stock_source", "missing"),
    ("best_uniform: ", "best_stock_flag: null, best_uniform: ", f"{PREFILL}.predicted.stock_us", "missing"),
    (
        "best_uniform: ",
        f"{STOCK}, best_stock_flag: {{name: x, step: 1}}, best_uniform: ",
        f"{PREFILL}.predicted.best_stock_flag.step",
        "'step_us'",
    ),
    (
        "best_uniform: ",
        f"{STOCK}, faster_rivals: {{}}, best_uniform: ",
        f"{PREFILL}.predicted.faster_rivals",
        "a list",
    ),
    (
        "best_uniform: ",
        f"{STOCK}, faster_rivals: [{{flag: null, tokens: [9, 1], lead: 0.1}}], best_uniform: ",
        f"{PREFILL}.predicted.faster_rivals[0].tokens",
        "min is above max",
    ),
    (
        "best_uniform: ",
        f"{STOCK}, faster_rivals: [{{tokens: [1, 9], lead: 0.1}}], best_uniform: ",
        f"{PREFILL}.predicted.faster_rivals[0].flag",
        "missing",
    ),
]

EXPERT_PER_RANK = "ep: 8, moe_backend: all_to_all"
ILLEGAL = [
    ("[113, 16384]", "[114, 16384]", f"{SECOND}.tokens", "gap after [1, 112]"),
    ("[113, 16384]", "[112, 16384]", f"{SECOND}.tokens", "overlaps [1, 112]"),
    ("[113, 16384]", "[1, 112]", f"{SECOND}.tokens", "overlaps"),
    ("embed_out: all_reduce", "embed_out: none", f"{PREFILL}.embed_out", "still due"),
    ("embed_out: all_reduce", "embed_out: reduce_scatter", f"{PREFILL}.layers.0.attn_in", "use all_gather"),
    ("embed_out: all_reduce", "embed_out: {all_reduce: {residual: fold}}", f"{PREFILL}.embed_out", "no residual yet"),
    ("embed_out: all_reduce", "embed_out: int8_all_reduce_", f"{PREFILL}.embed_out", "no such op"),
    (
        "attn_out: all_reduce",
        "attn_out: {all_reduce: {residual: fold}}",
        f"{PREFILL}.layers.0.attn_out",
        "leave `residual` out",
    ),
    (
        "attn_out: all_reduce",
        "attn_out: {all_reduce: {group: attn_dp}}",
        f"{PREFILL}.layers.0.attn_out",
        "the group is tp",
    ),
    ("attn_out: all_reduce", "attn_out: all_gather", f"{PREFILL}.layers.0.attn_out", "has no place at attn_out"),
    (
        "attn_out: all_reduce",
        "attn_out: {int8_all_reduce: {algorithm: gather}}",
        f"{PREFILL}.layers.0.attn_out",
        "quantized",
    ),
    ("attn_out: all_reduce", "attn_out: all_reduce_all_gather", f"{PREFILL}.layers.0.attn_out", "attn_dp is 1"),
    (
        "attn_out: all_reduce",
        "attn_out: all_reduce, mlp_in: all_gather",
        f"{PREFILL}.layers.0.mlp_in",
        "already replicated",
    ),
    ("attn_out: all_reduce", "attn_out: all_reduce, mlp_in: fused", f"{PREFILL}.layers.0.mlp_in", "second boundary"),
    ("attn_out: all_reduce", "attn_out: all_reduce, mlp_in: slice", f"{PREFILL}.layers.0.mlp_in", "already replicated"),
    (
        "attn_out: {all_reduce: {residual: fold}}",
        "attn_out: all_reduce",
        f"{SECOND}.layers.0.attn_out",
        "say `residual",
    ),
    ("{from: embed_out}", "{from: previous.mlp_out}", f"{SECOND}.layers.0.attn_in", "embed_out"),
    ("{from: previous.mlp_out}", "{from: embed_out}", f"{SECOND}.layers.1.attn_in", "0.mlp_out"),
    ("{from: previous.mlp_out}", "{from: 3.mlp_out}", f"{SECOND}.layers.1.attn_in", "0.mlp_out"),
    ("{latent_all_gather: {from: previous.mlp_out}}", "latent_all_gather", f"{SECOND}.layers.1.attn_in", "`from`"),
    ("head_in: all_gather", "head_in: none", f"{SECOND}.head_in", "use all_gather"),
    ("numerics: reordered", "numerics: exact", f"{SECOND}.embed_out", "looser than the exact"),
    ("latent_width: 2112", "latent_width: 0", f"{SECOND}.layers.0.attn_in", "q_lora_rank"),
    (
        "ep: 1, moe_backend: tensor_parallel",
        "ep: 8, moe_backend: all_to_all",
        f"{PREFILL}.layers.3.mlp_in",
        "use slice",
    ),
    ("moe_backend: tensor_parallel", "moe_backend: all_to_all", "parallelism.ep", "ep equal to tp 8"),
    ("{tp: 8,", "{tp: 1,", f"{PREFILL}.embed_out", "use none"),
]


@pytest.mark.parametrize(("old", "new", "field", "reason"), NOT_WELL_FORMED + ILLEGAL)
def test_one_spoiled_field(old: str, new: str, field: str | None, reason: str, r1: str, tmp_path: Path) -> None:
    assert old in r1
    path = tmp_path / "plan.yaml"
    path.write_text(r1.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        load(path)
    assert caught.value.file == str(path)
    assert caught.value.field == field
    assert reason in caught.value.message


ATTENTION_DP = [
    (
        "mlp_out: reduce_scatter_all_reduce}",
        "mlp_out: {reduce_scatter: {group: tp}}}",
        "layers.1.attn_in",
        "second boundary",
    ),
    ("attn_in: fused, ", "", "layers.1.attn_in", "must say `fused`"),
    ("attn_in: fused, ", "attn_in: {all_gather: {group: attn_tp}}, ", "layers.1.attn_in", "must say `fused`"),
    ("{all_gather: {group: attn_dp}}", "{all_gather: {group: tp}}", "layers.0.mlp_in", "the group is attn_dp"),
    ("{all_gather: {group: attn_dp}}", "{all_gather: {group: attn_tp}}", "layers.0.mlp_in", "the group is attn_dp"),
    ("{all_gather: {group: attn_dp}}", "none", "layers.0.mlp_in", "use all_gather"),
    ("{all_reduce: {group: attn_tp}}\n", "{all_reduce: {group: tp}}\n", "embed_out", "the group is attn_tp"),
    (
        "attn_out: {all_reduce: {group: attn_tp}}",
        "attn_out: {all_reduce: {group: tp}}",
        "layers.0.attn_out",
        "say `residual",
    ),
    (
        "mlp_out: reduce_scatter_all_reduce",
        "mlp_out: {all_reduce: {group: attn_tp}}",
        "layers.0.mlp_out",
        "the group is tp",
    ),
    ("head_in: {all_gather: {group: attn_dp}}", "head_in: fused", "head_in", "has no place at head_in"),
    (
        "head_in: {all_gather: {group: attn_dp}}",
        "head_in: {all_gather: {group: tp}}",
        "head_in",
        "the group is attn_dp",
    ),
    ("attn_dp: 4", "attn_dp: 2", None, ""),
    ("attn_dp: 4", "attn_dp: 8", "embed_out", "use none"),
]


@pytest.mark.parametrize(("old", "new", "field", "reason"), ATTENTION_DP)
def test_one_spoiled_field_under_attention_dp(
    old: str, new: str, field: str | None, reason: str, attention_dp: str, tmp_path: Path
) -> None:
    assert old in attention_dp
    path = tmp_path / "plan.yaml"
    path.write_text(attention_dp.replace(old, new, 1))
    if field is None:
        load(path)  # the same ops are legal over another split
        return
    with pytest.raises(InputError) as caught:
        load(path)
    assert caught.value.field == f"{PREFILL}.{field}"
    assert reason in caught.value.message


def test_a_short_text_cannot_ask_for_endless_work(r1: str) -> None:
    """Thousands of ranges over thousands of layers would fit in a small file."""
    from commplan.planner.strategy.file import parse

    text = r1[: r1.index("modes:")].replace("num_hidden_layers: 61", "num_hidden_layers: 10000")
    ranges = "".join(f"  - {{tokens: [{i}, {i}], layers: [{{layers: 0-9999}}]}}\n" for i in range(1, 1000))
    with pytest.raises(InputError, match="at most 100 token ranges"):
        parse(f"{text}modes:\n  prefill:\n{ranges}end: true\n")
    repeated = ",".join(["0-60"] * 100_000)
    with pytest.raises(InputError, match="twice"):
        parse(r1.replace("moe_layers: 3-60", f"moe_layers: '{repeated}'"))
