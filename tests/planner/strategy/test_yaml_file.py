"""The subset of YAML that is read, and the canonical YAML that is written: each reads back as what was meant."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from commplan.planner.strategy.errors import InputError
from commplan.planner.strategy.yaml_file import flow_text, parse_json, parse_yaml, scalar_text

from ..random_machines import examples

SCALARS = {
    "3": 3, "-3": -3, "+3": 3, "007": 7, "3.5": 3.5, ".5": 0.5, "3.": 3.0, "1e5": 1e5, "1.0e+5": 1e5, "-.5e-3": -0.0005,
    "true": True, "False": False, "TRUE": True, "null": None, "~": None, "": None,
    ".inf": math.inf, "-.inf": -math.inf, "+.INF": math.inf,
    '"3"': "3", "'true'": "true", '""': "", "'~'": "~",
    # What YAML 1.1 would take for something else is text, as YAML 1.2 says.
    "yes": "yes", "off": "off", "NO": "NO", "0x1f": "0x1f", "0o7": "0o7", "1_000": "1_000", "1:30": "1:30",
    "2026-01-01": "2026-01-01", "=": "=", "0-60": "0-60", "NaN": "NaN", "inf": "inf",
}  # fmt: skip


@pytest.mark.parametrize("text", SCALARS)
def test_plain_scalars_follow_the_core_schema_of_yaml_12(text: str) -> None:
    value = parse_yaml(f"key: {text}\n")["key"]
    assert (type(value), value) == (type(SCALARS[text]), SCALARS[text])


def test_nan_is_a_number_that_no_field_accepts() -> None:
    assert math.isnan(parse_yaml("key: .nan\n")["key"])


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def same(a: Any, b: Any) -> bool:
    """Equal, and of equal types: 1 is neither 1.0 nor true."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    return type(a) is type(b) and a == b


def without_merge_keys(value: Any) -> bool:
    if isinstance(value, dict):
        return "<<" not in value and all(map(without_merge_keys, value.values()))
    return not isinstance(value, list) or all(map(without_merge_keys, value))


@examples(150)
@given(values.filter(without_merge_keys))
def test_what_is_written_reads_back_as_the_same_value(value: Any) -> None:
    assert same(parse_yaml(f"key: {flow_text(value)}\n")["key"], value)


@examples(150)
@given(values.filter(without_merge_keys))
def test_what_is_written_means_the_same_to_another_reader(value: Any) -> None:
    assert same(yaml.safe_load(f"key: {flow_text(value)}\n")["key"], value)


@examples(150)
@given(values)
def test_json_is_read_as_json(value: Any) -> None:
    assert same(parse_json(json.dumps(value)), value)


@pytest.mark.parametrize(
    "text", ["😀", "naïve", "漢字", "\u2028", "\x7f", "\x00", "a\nb", "\ufeff", 'say "yes"', "\\u0041", "2026-01-01"]
)
def test_any_text_is_written_in_ascii_on_one_line(text: str) -> None:
    written = scalar_text(text)
    assert written.isascii() and written.isprintable()
    assert parse_yaml(f"key: {written}\n") == {"key": text}


@pytest.mark.parametrize(
    "text", ["yes", "No", "on", "y", "0x1f", "0o7", "0b1", "1_000", "1e5", "1:30", "2026-01-01", "<<"]
)
def test_words_that_other_readers_take_for_something_else_are_quoted(text: str) -> None:
    assert yaml.safe_load(f"key: {scalar_text(text)}\n") == {"key": text}


@examples(150)
@given(st.text())
def test_any_text_is_read_or_refused_as_input(text: str) -> None:
    for parse in (parse_yaml, parse_json):
        with suppress(InputError):
            parse(text)


@examples(150)
@given(st.text(alphabet="{}[]:,-&*!|>'\"%@`#?~<=\n\t ab1.", max_size=40))
def test_text_made_of_the_signs_of_yaml_is_read_or_refused_as_input(text: str) -> None:
    with suppress(InputError):
        parse_yaml(text)


@examples(150)
@given(st.text(alphabet="{}[]:,-'\"#?~<=\n ab1.", max_size=30))
def test_what_is_read_means_the_same_to_another_reader(text: str) -> None:
    """Where both accept a text of plain words, structure and texts agree: nothing is read in a way of our own."""
    try:
        ours = parse_yaml(text)
        theirs = yaml.load(text, Loader=yaml.BaseLoader)
    except (InputError, yaml.YAMLError):
        return
    assert shape(ours) == shape(theirs)


def shape(value: Any) -> Any:
    """The structure of a value, with nothing said of scalars but that they are."""
    if isinstance(value, list):
        return [shape(item) for item in value]
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    return "scalar"


def test_half_a_character_is_no_yaml() -> None:
    with pytest.raises(InputError, match="half a character"):
        parse_yaml("a: \ud800")
