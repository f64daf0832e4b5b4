"""The partial sums that one process emulates are those of the runtime's ranks."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from commplan.planner.strategy.file import Op  # noqa: E402
from commplan.runtime.sensitivity.emulated_ranks import EmulatedRanks  # noqa: E402
from commplan.runtime.sensitivity.losses import Losses  # noqa: E402
from commplan.runtime.sensitivity.measure import exact_loss, exact_sum, measure, perturbed  # noqa: E402
from commplan.runtime.sensitivity.wires import quantised_sum, sent  # noqa: E402

from ..transformers.tiny_models import VOCAB_SIZE, write_checkpoint  # noqa: E402

INT8 = Op("int8_all_reduce", algorithm="two_shot")
INT4 = Op("quantized_all_reduce", algorithm="gather", wire_name="int4", scale_group="32")


def losses_of(folder, family, ranks=2):
    from transformers import AutoModelForCausalLM

    checkpoint = write_checkpoint(family, folder / family)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    ids = torch.randint(0, VOCAB_SIZE, (2, 16), generator=torch.Generator().manual_seed(3))
    return Losses(EmulatedRanks(model, ranks), ids, 1)


@pytest.mark.parametrize("family", ["llama", "qwen3", "deepseek_v3", "gpt_oss"])
def test_exact_sums_of_emulated_ranks_are_the_model_itself(tmp_path, family):
    """Biases, experts (both ways in which they lie in memory), shared experts and latent attention among them."""
    losses = losses_of(tmp_path, family)
    everywhere = losses.emulated.everywhere(lambda parts: exact_sum(parts).to(parts.dtype))
    assert losses.with_sums(everywhere) == pytest.approx(exact_loss(losses), abs=2e-6)


def test_a_forward_that_starts_at_a_layer_gives_the_same_loss(tmp_path):
    losses = losses_of(tmp_path, "qwen3")
    sums = {(1, "mlp_out"): perturbed(INT4)}
    whole = losses.with_sums(sums)
    losses.begin_at(1)
    assert losses.with_sums(sums) == pytest.approx(whole, abs=1e-7)
    assert whole != pytest.approx(exact_loss(losses), abs=1e-7)


def test_what_is_odd_in_the_error_does_not_count(tmp_path):
    losses = losses_of(tmp_path, "llama")
    found = dict(measure(losses, (INT4,), {}))
    losses.begin_at(0)
    exact = exact_loss(losses)
    for place, result in found.items():
        (effect,) = result.effects
        forth = losses.with_sums({place: perturbed(INT4)}) - exact
        assert effect.loss + effect.odd == pytest.approx(forth, abs=1e-6)
    assert set(found) == set(losses.emulated.places)


def test_places_that_are_known_are_not_measured_again(tmp_path):
    losses = losses_of(tmp_path, "llama")
    found = dict(measure(losses, (INT8,), {}))
    losses.begin_at(0)
    known = {place: found[place] for place in list(found)[:3]}
    assert list(measure(losses, (INT8,), known)) == list(found.items())[3:]


def test_two_shots_quantise_the_sum_once_more():
    parts = torch.randn(3, 4, 64, generator=torch.Generator().manual_seed(0))
    once = quantised_sum(parts, Op("int8_all_reduce", algorithm="gather"))
    assert torch.equal(once, sent(parts, "int8", "token").sum(0))
    assert torch.equal(quantised_sum(parts, INT8), sent(once, "int8", "token"))


@pytest.mark.parametrize(
    ("wire", "group"), [("int8", "token"), ("int6", "64"), ("int4_spikes", "32"), ("fp8_e4m3", "128")]
)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nothing_finite_comes_of_what_is_not_finite_in_its_group(wire, group, bad):
    rows = torch.randn(2, 96, generator=torch.Generator().manual_seed(0))
    rows[0, 5] = bad
    columns = 96 if group == "token" else min(96, int(group))
    found = sent(rows, wire, group)
    assert not found[0, 5].isfinite()
    assert found[1].isfinite().all()
    assert found[0, columns:].isfinite().all()


def test_a_row_of_zeros_stays_one_and_a_width_need_not_be_a_multiple_of_the_group():
    rows = torch.zeros(2, 70)
    rows[1, 69] = 1.0
    assert torch.equal(sent(rows, "int8", "64"), rows)
