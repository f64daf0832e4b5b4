"""The examples of property tests are the same in every run."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .random_machines import examples


def drawn() -> list[tuple[float, int, str]]:
    found = []

    @examples(300)
    @given(st.floats(0.0, 1.0), st.integers(), st.text())
    def note(share: float, number: int, text: str) -> None:
        found.append((share, number, text))

    note()
    return found


def test_examples_do_not_depend_on_what_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = drawn()
    (tmp_path / "imported_late.py").write_text("CONSTANTS = 0.4321, 987_654, 'a word'")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("imported_late")
    try:
        assert drawn() == before
    finally:
        del sys.modules["imported_late"]
