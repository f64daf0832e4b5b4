"""The shape of the work: what each token attends to, how many requests there are, which rows need logits."""

from __future__ import annotations

import pytest

from commplan.planner.cost.workload import work_of
from commplan.planner.descriptions.deployment import ModeSpec

PREFILL = ModeSpec(tokens=(1, 10_000), sequence_tokens=100)
DECODE = ModeSpec(tokens=(1, 10_000), context_tokens=1000)


def test_causal_prefill_attends_to_half_of_its_own_sequence():
    work = work_of("prefill", PREFILL, 300)
    assert work.attended == 3 * sum(range(1, 101))
    assert (work.requests, work.logits, work.cached) == (3, 3, 300)


def test_the_last_sequence_may_be_shorter():
    work = work_of("prefill", PREFILL, 250)
    assert work.attended == 2 * sum(range(1, 101)) + sum(range(1, 51))
    assert (work.requests, work.logits) == (3, 3)


def test_a_prefill_shorter_than_a_sequence_is_one_request():
    work = work_of("prefill", PREFILL, 7)
    assert (work.requests, work.logits, work.attended) == (1, 1, sum(range(1, 8)))


def test_every_new_token_attends_to_the_prefix():
    prefixed = work_of("prefill", ModeSpec(tokens=(1, 10_000), sequence_tokens=100, prefix_tokens=40), 200)
    assert prefixed.attended == work_of("prefill", PREFILL, 200).attended + 200 * 40
    assert prefixed.cached == 200 + 2 * 40


def test_decode_attends_to_its_context_and_needs_logits_of_every_row():
    work = work_of("decode", DECODE, 64)
    assert work.attended == 64 * 1001
    assert (work.requests, work.logits, work.cached) == (64, 64, 64 * 1001)


def test_verified_drafts_share_the_cache_of_their_request():
    work = work_of("target_verify", ModeSpec(tokens=(1, 100), context_tokens=1000, draft_tokens=4), 64)
    assert (work.requests, work.logits) == (16, 64)
    assert work.attended == 16 * sum(1000 + k for k in (1, 2, 3, 4))
    assert work.cached == 16 * 1004


def test_a_mixed_forward_is_the_sum_of_its_parts():
    mixed = ModeSpec(tokens=(1, 1000), sequence_tokens=100, context_tokens=1000, decode_fraction=0.25)
    work = work_of("mixed", mixed, 400)
    prefill, decode = work_of("prefill", PREFILL, 300), work_of("decode", DECODE, 100)
    for part in ("attended", "cached", "requests", "logits"):
        assert getattr(work, part) == getattr(prefill, part) + getattr(decode, part)


def test_a_sparse_index_caps_what_is_attended_to():
    work = work_of("decode", DECODE, 10)
    assert work.capped(None) == work.attended
    assert work.capped(128) == 10 * 128
    assert work.capped(5000) == work.attended


@pytest.mark.parametrize(("mode", "spec"), [("prefill", PREFILL), ("decode", DECODE)])
def test_more_tokens_are_more_work(mode, spec):
    works = [work_of(mode, spec, tokens) for tokens in range(1, 500)]
    for part in ("attended", "cached", "requests", "logits"):
        values = [getattr(work, part) for work in works]
        assert values == sorted(values)
