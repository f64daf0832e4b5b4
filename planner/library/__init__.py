"""commplan as a library: what the `commplan` command answers, as Python objects.

    plan      the cheapest legal plan of a deployment
    explain   why an op stands where it stands, and what every other one would cost
    what_if   a deployment with fields varied: every strategy and the plan at every point
    validate  is a strategy file legal?
    load      a strategy file as a plan

What is wrong with an input is raised as a CommplanError; nothing is printed. Importing this loads nothing: each name
is read when it is first used.
"""

TYPE_CHECKING = False  # true to type checkers; to import it from typing would take longer than all else here

if TYPE_CHECKING:
    from commplan._explain import Explanation, explain
    from commplan._plan import Plan, Range, load, plan
    from commplan._validate import Validation, validate
    from commplan._what_if import WhatIf, what_if
    from commplan.planner.strategy.errors import (
        CommplanError,
        DoesNotFitError,
        InputError,
        NoLegalPlanError,
        OverwriteError,
    )

    __version__: str

__all__ = [
    "CommplanError",
    "DoesNotFitError",
    "Explanation",
    "InputError",
    "NoLegalPlanError",
    "OverwriteError",
    "Plan",
    "Range",
    "Validation",
    "WhatIf",
    "__version__",
    "explain",
    "load",
    "plan",
    "validate",
    "what_if",
]

_ERRORS = "commplan.planner.strategy.errors"
_HOMES = {
    "CommplanError": _ERRORS,
    "DoesNotFitError": _ERRORS,
    "Explanation": "commplan._explain",
    "InputError": _ERRORS,
    "NoLegalPlanError": _ERRORS,
    "OverwriteError": _ERRORS,
    "Plan": "commplan._plan",
    "Range": "commplan._plan",
    "Validation": "commplan._validate",
    "WhatIf": "commplan._what_if",
    "explain": "commplan._explain",
    "load": "commplan._plan",
    "plan": "commplan._plan",
    "validate": "commplan._validate",
    "what_if": "commplan._what_if",
}

if __name__ != "commplan":  # an editable install finds this folder below the planner too, where no wheel has it
    raise ImportError("import commplan: the library has no other name", name=__name__)


def __getattr__(name: str) -> object:
    """Read a name when it is first used."""
    if name == "__version__":
        from importlib.metadata import version

        found: object = version("commplan")
    elif name in _HOMES:
        from importlib import import_module

        found = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'commplan' has no attribute '{name}'", name=name, obj=__name__)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """The names that are offered, read or not."""
    return sorted({*globals(), *__all__} - {"TYPE_CHECKING"})
