"""What `import commplan` offers is frozen here: a change of it is a change of every user's program."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import commplan

FUNCTIONS = {
    "plan": "(deployment, *, set=None, require_fit=False, on_note=None)",
    "load": "(path, *, deployment=None, set=None, on_note=None)",
    "explain": "(deployment=None, *, mode=None, tokens=None, layer=None, boundary='attn_out', op=None, strategy=None, "
    "set=None, on_note=None)",
    "what_if": "(deployment, *, vary=None, mode=None, tokens=None, set=None, progress=None)",
    "validate": "(path)",
}
CLASSES = {
    "Plan": "at deployment explain fit fits hash memory modes notes ranges save setup step_us strategy text to_records",
    "Range": "at first gain last mode ops predicted step_us summary to_records trust",
    "Explanation": "alternatives chosen details first last notes place setup to_records",
    "WhatIf": "answers crossovers mode notes points sweep to_records tokens",
    "Validation": "legal path problems to_records",
}
ERRORS = {
    "CommplanError": Exception,
    "InputError": commplan.CommplanError,
    "OverwriteError": commplan.CommplanError,
    "NoLegalPlanError": commplan.CommplanError,
    "DoesNotFitError": commplan.CommplanError,
}


def test_the_names_are_these_and_no_others() -> None:
    assert set(commplan.__all__) == {*FUNCTIONS, *CLASSES, *ERRORS, "__version__"}
    offered = {name for name in dir(commplan) if not name.startswith("_")}
    assert offered - {"planner", "runtime", "configs"} == set(commplan.__all__) - {"__version__"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_question_is_asked_with_these_arguments(name: str) -> None:
    signature = inspect.signature(getattr(commplan, name))
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    assert str(inspect.Signature(bare)) == FUNCTIONS[name]
    assert all(p.annotation is not inspect.Parameter.empty for p in signature.parameters.values())


@pytest.mark.parametrize("name", CLASSES)
def test_an_answer_has_these_attributes(name: str) -> None:
    answer = answers()[name]
    assert {known for known in dir(answer) if not known.startswith("_")} == set(CLASSES[name].split())
    assert callable(answer._repr_html_)


def answers() -> dict[str, object]:
    plan = commplan.plan("qwen3-0.6b-cpu-tp2")
    return {
        "Plan": plan,
        "Range": plan.ranges()[0],
        "Explanation": plan.explain(),
        "WhatIf": commplan.what_if("qwen3-0.6b-cpu-tp2", vary={"tokens": [8]}),
        "Validation": commplan.validate("no such file"),
    }


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_of_this_kind(name: str) -> None:
    assert issubclass(getattr(commplan, name), ERRORS[name])


def test_every_name_says_what_it_is() -> None:
    assert all(getattr(commplan, name).__doc__ for name in (*FUNCTIONS, *CLASSES, *ERRORS))


def test_the_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert commplan.__version__ == version("commplan")


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'plans'"):
        _ = commplan.plans


# ---- what is loaded, and when ----------------------------------------------------------------------------------------


def loaded_by(code: str) -> set[str]:
    """Modules that a fresh interpreter has after `code` and had not before."""
    script = f"import sys; before = set(sys.modules)\n{code}\nprint('\\nloaded:', *(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    return set(done.stdout.rpartition("loaded:")[2].split())


def test_the_import_loads_itself_alone() -> None:
    assert loaded_by("import commplan") == {"commplan"}  # `import commplan.planner` loaded two before there was this


def test_the_planner_is_imported_with_as_little_as_before() -> None:
    assert loaded_by("import commplan.planner") == {"commplan", "commplan.planner"}


def test_errors_and_strategy_files_load_nothing_heavy(tmp_path) -> None:
    file = tmp_path / "strategy.yaml"
    commplan.plan("qwen3-0.6b-cpu-tp2").save(file)
    loaded = loaded_by(f"import commplan; commplan.CommplanError; commplan.load({str(file)!r}).to_records()")
    assert "commplan._plan" in loaded
    assert not {name.partition(".")[0] for name in loaded} & {"pydantic", "networkx", "numpy", "click", "torch"}


def test_a_question_loads_neither_torch_nor_the_command_line() -> None:
    loaded = loaded_by("import commplan; commplan.plan('qwen3-0.6b-cpu-tp2').explain().to_records()")
    assert "pydantic" in loaded
    assert not {name.partition(".")[0] for name in loaded} & {"networkx", "numpy", "click", "torch"}
    assert not any(name.startswith(("commplan.runtime", "commplan.planner.cli")) for name in loaded)


def test_the_library_has_one_name() -> None:
    with pytest.raises(ImportError):
        __import__("commplan.planner.library")
