"""Types of weights: blocks that shards must keep whole, executors that load them, and what their GEMMs cost."""

from __future__ import annotations

import re

import pytest

from commplan.planner.cost.kernels import DeviceCosts
from commplan.planner.descriptions.loader import load_setup, preset_names
from commplan.planner.descriptions.weight_types import WEIGHT_TYPES, WeightFormat
from commplan.planner.executors import executor_names
from commplan.planner.strategy.errors import InputError
from commplan.planner.strategy.executor_file import capabilities

from ..cli.commandline import refused
from ..named_plans import planner_of

QWEN, R1 = "qwen3-235b-h200-tp8", "deepseek-r1-h20-tp8"
REPORT = "executor=plan_only"


# ---- blocks ----------------------------------------------------------------------------------------------------------

# Of MoE layers of Qwen3-235B (1536 wide) and of R1's V3 relatives: what servers refuse too, with the same way out.
CUT = [
    ((QWEN, "weights=fp8"), "moe_intermediate_size", 192, "ep 2, ep 4, ep 8, tp 4, tp 2, tp 1"),
    ((QWEN, "weights=fp8", "parallelism.tp=8", "parallelism.ep=1"), "moe_intermediate_size", 192, "ep 2"),
    ((QWEN, "weights=w4a16"), "moe_intermediate_size", 192, "ep 2"),
    ((QWEN, "weights=mxfp4", "weight_block=[1, 96]"), "num_attention_heads", 1024, "tp 1"),
    ((R1, "model.moe_intermediate_size=1024", "weight_block=[256, 256]"), "moe_intermediate_size", 128, "ep 2"),
    (("qwen3-32b-a2-tp2", "hardware=h200-8", "weights=fp8", "weight_block=[2048, 64]"),
     "num_key_value_heads", 512, "tp 1"),
]  # fmt: skip


def overrides(*texts: str) -> list[str]:
    short = {"weights": "dtypes.weights", "weight_block": "dtypes.weight_block"}
    return [f"{short.get(k, k)}={v}" for k, _, v in (text.partition("=") for text in texts)]


@pytest.mark.parametrize(("case", "field", "shard", "ways"), CUT)
def test_a_shard_that_cuts_a_block_is_refused_with_field_size_and_way_out(case, field, shard, ways):
    name, *texts = case
    error = refused("plan", name, *(f"--set={text}" for text in overrides(*texts, REPORT)))
    assert (error["field"], error["value"]) == ("parallelism.tp", load_setup(name).parallelism.tp)
    assert f"ranks cut {field} into shards of {shard}, " in error["message"]
    assert f"accepted: {ways}" in error["message"]


@pytest.mark.parametrize(("case", "field", "shard", "ways"), CUT)
def test_each_way_out_is_accepted(case, field, shard, ways):
    name, *texts = case
    given = overrides(*texts, REPORT)
    with pytest.raises(InputError) as error:
        load_setup(name, tuple(given))
    for axis, size in re.findall(r"(tp|ep) (\d+)", error.value.message.partition("accepted: ")[2]):
        load_setup(name, (*given, f"parallelism.{axis}={size}"))


@pytest.mark.parametrize(
    "texts",
    [
        ("weights=fp8", "parallelism.ep=8"),
        ("weights=fp8", "weight_block=null"),
        ("weights=fp8", "weight_block=[64, 64]"),
        ("weights=int8",),  # a scale per row
        ("weights=w8a16",),
        ("weights=mxfp4",),  # 192 is six groups of 32
        ("weights=bf16",),
    ],
)
def test_shards_of_whole_blocks_are_accepted(texts):
    load_setup(QWEN, tuple(overrides(*texts, REPORT)))


def test_what_every_rank_holds_whole_may_end_within_a_block():
    """kv_a of R1 has 576 rows, four and a half blocks, on every rank."""
    assert load_setup(R1).weights.block == (128, 128)


def test_parts_that_a_checkpoint_left_as_they_are_have_no_blocks():
    left = "model.quantization={weights: fp8, block: [128, 128], unquantized: [experts]}"
    load_setup(QWEN, (REPORT, "dtypes.weights=fp8", left))


def test_no_size_of_the_machine_may_do():
    with pytest.raises(InputError, match="no other tp or ep of this machine is accepted: use bf16 weights"):
        load_setup("qwen3-32b-a2-tp2", (REPORT, "hardware=h200-8", "parallelism.attn_dp=2", "model.head_dim=96",
                                        "dtypes.weights=fp8", "dtypes.weight_block=[5000, 5000]"))  # fmt: skip


def test_a_block_without_scales_is_refused():
    error = refused("plan", "qwen3-32b-h200-tp2", "--set", "dtypes.weight_block=[128, 128]")
    assert (error["field"], error["message"]) == ("dtypes.weight_block", "bf16 weights have no scales: leave it out")


def test_a_stack_of_more_layers_than_the_model_has_is_refused():
    error = refused("plan", "qwen3-32b-h200-tp2", "--set", "loaded_layers=65")
    assert (error["field"], error["message"]) == ("loaded_layers", "Qwen3-32B has 64 layers")


# ---- executors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["fp8", "int8", "w8a16", "w4a16", "mxfp4"])
def test_the_transformers_executor_refuses_what_its_runtime_does(weights):
    error = refused("plan", "qwen3-32b-h200-tp2", "--set", f"dtypes.weights={weights}")
    assert (error["field"], error["value"]) == ("dtypes.weights", weights)
    assert "executor transformers loads fp32, bf16, fp16 (its runtime refuses quantised" in error["message"]
    assert "executor=plan_only" in error["message"]


def test_every_shipped_deployment_has_weights_that_its_executor_loads():
    for name in preset_names("deployments"):
        setup = load_setup(name)
        assert setup.weights.dtype in setup.executor.weights.dtypes


def test_executors_name_types_that_there_are():
    for name in executor_names():
        setup = load_setup("qwen3-32b-h200-tp2", (f"executor={name}",))
        assert set(setup.executor.weights.dtypes) <= set(WEIGHT_TYPES)
        assert ("fp8" in setup.executor.weights.dtypes) == (capabilities(name).name != "transformers")


# ---- prices ----------------------------------------------------------------------------------------------------------


def device(weights: str) -> DeviceCosts:
    record = WEIGHT_TYPES[weights]
    hardware = load_setup(QWEN, ("hardware.compute.gemm_tile_rows=16",)).hardware
    return DeviceCosts(hardware, WeightFormat(weights, record.block), "bf16")


@pytest.mark.parametrize(("weights", "share"), [("w8a16", 0.5), ("w4a16", 0.2578), ("mxfp4", 0.2656), ("fp8", 0.5)])
def test_a_gemm_of_few_rows_reads_the_weights_at_their_size(weights, share):
    bf16, found = (device(each).gemm(1, 8192, 8192).time_us for each in ("bf16", weights))
    assert found / bf16 == pytest.approx(share, rel=0.01)


@pytest.mark.parametrize(("weights", "share"), [("w8a16", 1), ("w4a16", 1), ("mxfp4", 1), ("fp8", 0.5), ("int8", 0.5)])
def test_a_gemm_of_many_rows_computes_at_the_rate_of_the_activations_where_weights_alone_are_small(weights, share):
    bf16, found = (device(each).gemm(65536, 8192, 8192).time_us for each in ("bf16", weights))
    assert found / bf16 == pytest.approx(share, rel=0.01)


def test_weights_alone_need_no_rate_of_the_machine():
    load_setup("qwen3-32b-h200-tp2", (REPORT, "hardware=a100-8", "dtypes.weights=w4a16"))
    with pytest.raises(InputError, match="gives no fp8 rate"):
        load_setup("qwen3-32b-h200-tp2", (REPORT, "hardware=a100-8", "dtypes.weights=fp8"))


@pytest.mark.parametrize(("weights", "bytes_per_element"), [("fp8", 1), ("w8a16", 2), ("w4a16", 2), ("bf16", 2)])
def test_experts_get_quantised_rows_where_they_compute_in_eight_bits(weights, bytes_per_element):
    texts = (REPORT, f"dtypes.weights={weights}", "parallelism.ep=8", "parallelism.moe_backend=all_to_all")
    planner = planner_of(QWEN, "prefill", *texts)
    rows, model = 4096 / 8, planner.setup.model
    exchanged = sum(e.wire_bytes for e in planner.fixed(4096)) / model.num_hidden_layers
    one_way = rows * model.num_experts_per_tok * model.hidden_size * 7 / 8
    assert exchanged == pytest.approx(one_way * (bytes_per_element + 2), rel=0.01)


def test_parts_left_as_they_are_are_read_in_full():
    """Kimi-K2.5 keeps attention and shared experts in bf16."""
    left = "model.quantization={weights: w4a16, block: [1, 32], unquantized: [attention]}"
    names = ("dtypes.weights=w4a16", "dtypes.weight_block=[1, 32]", REPORT)
    all_small, attention_left = (planner_of(QWEN, "decode", *names, *more) for more in ((), (left,)))
    assert sum(e.time_us for e in attention_left.fixed(1)) > 1.1 * sum(e.time_us for e in all_small.fixed(1))
