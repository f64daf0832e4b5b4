"""What an import really loads, in a fresh interpreter.

The contracts in pyproject.toml read import statements; a re-export in a package's __init__.py or an import inside a
function passes them and loads the module all the same.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"click", "networkx", "numpy", "pydantic", "torch", "transformers"}


def loaded_by(code: str) -> set[str]:
    """Top-level names of the modules that a fresh interpreter has after running `code`, and commplan's in full."""
    script = f"{code}\nimport sys; print('\\nloaded:', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    names = done.stdout.rpartition("loaded:")[2].split()
    return {name if name.startswith("commplan.") else name.partition(".")[0] for name in names}


def modules_below(folder: str) -> list[str]:
    """Every module in a folder of the packages, as an import names it."""
    paths = [path.relative_to(ROOT).with_suffix("") for path in (ROOT / folder).rglob("*.py")]
    return sorted(".".join(["commplan", *path.parts]).removesuffix(".__init__") for path in paths)


def of_the_planner(loaded: set[str]) -> set[str]:
    """The planner's modules and the library's among them, but for those that runtime and planner share."""
    shared = "commplan.planner.strategy"
    planner = {name for name in loaded if name.startswith(("commplan.planner.", "commplan._"))}
    return {name for name in planner if name != shared and not name.startswith(f"{shared}.")}


def test_the_words_that_planner_and_runtime_share_load_nothing_heavy_and_nothing_above_them() -> None:
    command_line = "commplan.planner.strategy.command_line"  # for the two command lines alone: it has click
    words = [name for name in modules_below("planner/strategy") if not name.startswith(command_line)]
    loaded = loaded_by(f"import {', '.join(words)}")
    assert not loaded & HEAVY
    assert command_line not in loaded
    assert of_the_planner(loaded) == set()
    assert not any(name.startswith("commplan.runtime") for name in loaded)


@pytest.mark.slow
def test_the_whole_runtime_loads_nothing_of_the_planner_but_the_shared_words() -> None:
    for needed in ("torch", "transformers", "triton"):
        pytest.importorskip(needed)
    modules = modules_below("runtime")
    loaded = loaded_by(f"import {', '.join(modules)}")
    assert set(modules) <= loaded
    assert of_the_planner(loaded) == set()


def test_the_walls_guard_sees_an_import_through_it() -> None:
    loaded = loaded_by("import commplan.runtime.errors, commplan.planner.search.offers")
    assert "commplan.planner.search.offers" in of_the_planner(loaded)


def test_reading_what_an_executor_can_run_loads_nothing_heavy() -> None:
    code = "from commplan.planner.strategy.file import capabilities; capabilities('sglang').ops_at"
    assert not loaded_by(code) & HEAVY


def test_reading_and_proving_a_strategy_file_loads_nothing_heavy(tmp_path: Path) -> None:
    file = str(tmp_path / "strategy.yaml")
    run_command(["plan", "deepseek-r1-h20-tp8", "-o", file])
    assert not loaded_by(f"from commplan.planner.strategy.file import load; load({file!r})") & HEAVY


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["plan", "--help"]])
def test_help_is_quick_because_it_loads_neither_specs_nor_costs(arguments: list[str]) -> None:
    loaded = run_command(arguments)
    assert not loaded & {"networkx", "numpy", "pydantic", "torch", "yaml", "commplan.planner.descriptions.loader"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "deepseek-r1-h20-tp8"],
        ["explain", "deepseek-r1-h20-tp8", "--layer", "12"],
        ["presets"],
    ],
)
def test_planning_loads_neither_torch_nor_networkx_nor_the_runtime(arguments: list[str]) -> None:
    loaded = run_command(arguments)
    assert not loaded & {"networkx", "numpy", "torch", "torch_npu", "transformers", "commplan.runtime"}


def test_every_folder_with_code_is_a_listed_package() -> None:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {
        ".".join([package, *path.parent.relative_to(ROOT / folder).parts])
        for package, folder in setup["package-dir"].items()
        for path in (ROOT / folder).rglob("*.py")
    }
    assert found - {"commplan.planner.library"} == set(setup["packages"])  # which is `commplan` itself


def test_every_module_of_the_library_is_in_its_contracts() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (users,) = (contract for contract in contracts if "commplan" in contract.get("protected_modules", ()))
    (asks,) = (contract for contract in contracts if "commplan._plan" in contract.get("source_modules", ()))
    modules = {f"commplan.{path.stem}" for path in (ROOT / "planner" / "library").glob("_[a-z]*.py")}
    assert set(users["protected_modules"]) == {*modules, "commplan"}
    assert set(asks["source_modules"]) == modules


def run_command(arguments: list[str]) -> set[str]:
    """What the `commplan` command has loaded when it is done."""
    return loaded_by(
        f"import sys; sys.argv = ['commplan', *{arguments!r}]\n"
        "from commplan.planner.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code"
    )
