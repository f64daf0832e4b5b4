"""Whatever stands in a file, reading it gives a strategy or an InputError, and proving it a list of problems."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commplan.planner.answers.validation import validate
from commplan.planner.strategy.errors import InputError
from commplan.planner.strategy.file import StrategyFile, dump, load, parse, problems

from ...random_machines import examples
from .conftest import PLANS

TEXTS = [path.read_text() for path in sorted(PLANS.glob("*.yaml"))]
SIGNS = "{}[]:,-\n \t\"'#&*!|>%@`?~<=0123456789abcdefxyz_./é😀\x00\x1b"
WORDS = [
    "null", "true", "-1", "0", "1e999", ".nan", "9" * 50, "[]", "{}", "''", "0-60", "0-999999", "fold", "fused", "none",
    "slice", "all_reduce", "reduce_scatter", "all_gather", "int8_all_reduce", "latent_all_gather", "layers", "tokens",
    "&a", "*a", "!!str", "<<", "---", "...", "schema", "modes", "prefill", "end", "{all_reduce: {}}", "\n", "  ",
]  # fmt: skip


def read(text: str) -> StrategyFile | None:
    """The strategy, or None where the text is refused as input; anything else that is raised fails the test."""
    try:
        strategy = parse(text)
    except InputError as error:
        json.dumps(error.as_json(), allow_nan=False)
        return None if error.message and str(error).isprintable() else pytest.fail(str(error))
    for problem in problems(strategy):
        assert problem.field and problem.reason
    return strategy


@st.composite
def spoiled(draw: st.DrawFn) -> str:
    """A real file with a few pieces cut out, doubled, moved, or replaced."""
    text = draw(st.sampled_from(TEXTS))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text) - 1))
        stop = draw(st.integers(start, min(len(text), start + 60)))
        piece = draw(
            st.sampled_from(["", text[start:stop] * 2, *WORDS]) | st.text(SIGNS, max_size=4),
        )
        text = text[:start] + piece + text[stop:]
    return text


@st.composite
def words_exchanged(draw: st.DrawFn) -> str:
    """A real file with one word or number for another: well-formed more often than not."""
    lines = draw(st.sampled_from(TEXTS)).splitlines()
    index = draw(st.integers(0, len(lines) - 1))
    parts = lines[index].replace(",", " ,").replace("}", " }").split(" ")
    place = draw(st.integers(0, len(parts) - 1))
    parts[place] = draw(st.sampled_from(WORDS))
    lines[index] = " ".join(parts)
    return "\n".join(lines) + "\n"


@pytest.mark.slow
@examples(300)
@given(spoiled())
def test_a_spoiled_file_is_read_or_refused(text: str) -> None:
    read(text)


@examples(300)
@given(words_exchanged())
def test_what_is_read_of_a_file_with_a_word_exchanged_can_be_written_and_read_again(text: str) -> None:
    strategy = read(text)
    if strategy is not None and not list(problems(strategy)):
        again = parse(dump(strategy))
        assert dump(again) == dump(strategy)
        assert again.modes.keys() == strategy.modes.keys()


@examples(150)
@given(content=st.binary(max_size=200))
def test_bytes_of_any_kind_are_refused(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "hostile.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load(path)
    assert caught.value.file == str(path)
    assert validate(path)


@examples(100)
@given(st.text(SIGNS, max_size=60))
def test_a_header_before_rubbish_is_refused(text: str) -> None:
    assert read(f"schema: commplan/strategy/v1\n{text}\nend: true\n") is None


@pytest.mark.parametrize("index", range(len(TEXTS)))
def test_a_file_without_any_one_of_its_lines_is_refused_or_stays_legal(index: int) -> None:
    lines = TEXTS[index].splitlines(keepends=True)
    for line in range(len(lines)):
        strategy = read("".join(lines[:line] + lines[line + 1 :]))
        if strategy is not None and not list(problems(strategy)):
            assert "predicted" in lines[line], "only a prediction can be missed by nobody"


@pytest.mark.parametrize("index", range(len(TEXTS)))
def test_a_file_with_a_line_twice_is_refused(index: int) -> None:
    lines = TEXTS[index].splitlines(keepends=True)
    for line in range(len(lines)):
        with pytest.raises(InputError):
            parse("".join(lines[: line + 1] + lines[line:]))
