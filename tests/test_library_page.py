"""docs/library.md shows what its scripts really print, and names what there is."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

import commplan

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_every_script_of_the_page_prints_what_is_shown():
    spec = importlib.util.spec_from_file_location("fill_readme", ROOT / "docs" / "fill_readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.filled_library(PAGE) == PAGE, "run: python docs/fill_readme.py"


def test_every_name_of_the_library_on_the_page_is_there():
    named = set(re.findall(r"\bcommplan\.([a-z_]\w*)", PAGE)) - {"planner", "runtime"}
    assert {"plan", "explain", "what_if", "validate", "load"} <= named <= set(dir(commplan))
