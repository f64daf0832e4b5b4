"""Spoiled files end in one clear error or in an answer, never in anything else. `make fuzz` runs 10,000 such cases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .cases import WHOLE_EVERY, Case, run_case, run_unspoiled
from .commands import READERS
from .corpus import Corpus

pytestmark = pytest.mark.slow

CASES, CHUNKS = 200, 8


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return Corpus(tmp_path_factory.mktemp("corpus"))


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_a_spoiled_file_ends_in_an_answer_or_in_one_clear_error_and_changes_nothing(chunk: int, corpus: Corpus) -> None:
    seeds = range(chunk * CASES // CHUNKS, (chunk + 1) * CASES // CHUNKS)
    short = [str(outcome) for seed in seeds if (outcome := run_case(seed, corpus, whole=False)).faults]
    assert not short, "\n".join(short)


@pytest.mark.parametrize("kind", READERS)
def test_every_command_takes_the_files_as_long_as_nothing_is_wrong_with_them(kind: str, corpus: Corpus) -> None:
    """Otherwise every case would end early, and nothing would be looked at."""
    outcomes = [(reading, run_unspoiled(kind, reading, corpus)) for reading in READERS[kind]]
    wrong = [f"{end.code}: {end}" for reading, end in outcomes if end.faults or end.code != reading.right_code]
    assert not wrong, "\n".join(wrong)


def test_a_seed_is_the_same_case_every_time_and_kinds_and_processes_come_in_turn() -> None:
    assert [Case.of(seed)[0] for seed in range(50)] == [Case.of(seed)[0] for seed in range(50)]
    cases = [Case.of(seed)[0] for seed in range(1000)]
    assert {case.kind for case in cases} == set(READERS)
    assert {case.reading for case in cases} == {reading for readings in READERS.values() for reading in readings}
    assert sum(case.whole for case in cases) == 1000 // WHOLE_EVERY
