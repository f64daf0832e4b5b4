"""`range_of` finds the ops of a forward by mode and token count, and says what is planned where it finds none."""

from __future__ import annotations

import pytest

from commplan.planner.strategy.file import parse

from .rules import Op, World
from .texts import text_of

PLAIN = [Op("all_reduce"), *[Op("none"), Op("all_reduce")] * 2, Op("none")]


def many_ranges(*bounds: tuple[int, int]) -> str:
    return text_of(World(tp=2, num_layers=1), *((tokens, PLAIN) for tokens in bounds))


def test_every_count_is_found_in_the_range_that_holds_it(r1: str) -> None:
    strategy = parse(r1)
    for tokens in range(1, 300):
        found = strategy.range_of("prefill", tokens)
        assert found.first <= tokens <= found.last
    assert strategy.range_of("prefill", 16384) is strategy.modes["prefill"][-1]


def test_the_edges_belong_to_their_ranges() -> None:
    strategy = parse(many_ranges((4, 4), (5, 9), (10, 10), (11, 1000)))
    for tokens, bounds in {4: (4, 4), 5: (5, 9), 9: (5, 9), 10: (10, 10), 11: (11, 1000), 1000: (11, 1000)}.items():
        found = strategy.range_of("prefill", tokens)
        assert (found.first, found.last) == bounds


@pytest.mark.parametrize("tokens", [-1, 0, 3, 1001, 10**9])
def test_a_count_outside_the_span_names_the_span(tokens: int) -> None:
    with pytest.raises(LookupError, match=rf"{tokens} tokens .* \[4, 1000\]"):
        parse(many_ranges((4, 9), (10, 1000))).range_of("prefill", tokens)


def test_a_mode_without_a_section_names_those_there_are(r1: str) -> None:
    with pytest.raises(LookupError, match="no section for mode target_verify; it has prefill, decode"):
        parse(r1).range_of("target_verify", 8)


def test_layers_are_found_by_number_in_whatever_order_their_runs_stand(r1: str) -> None:
    first, others = (next(line for line in r1.splitlines() if f"layers: {n}, attn_in" in line) for n in ("0", "1-60"))
    swapped = r1.replace(f"{first}\n{others}\n", f"{others}\n{first}\n", 1)
    assert swapped != r1
    plan = parse(swapped).range_of("prefill", 16384)
    assert plan == parse(r1).range_of("prefill", 16384)
    assert str(plan.layers[0].attn_in) == "latent_all_gather(from=embed_out)"
    assert str(plan.layers[60].attn_in) == "latent_all_gather(from=previous.mlp_out)"


def test_layer_shapes_follow_from_the_file_alone(r1: str) -> None:
    strategy = parse(r1)
    assert strategy.layer_shape(3).has_latent
    assert not strategy.layer_shape(3).all_to_all
    everywhere = parse(r1.replace("ep: 1, moe_backend: tensor_parallel", "ep: 8, moe_backend: all_to_all"))
    assert [everywhere.layer_shape(layer).all_to_all for layer in (0, 2, 3, 60)] == [False, False, True, True]
