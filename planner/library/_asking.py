"""What the questions of the library have in common: how they are asked, what they read, in whose words they fail."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from commplan.planner.strategy.bounds import MAX_TOKENS
from commplan.planner.strategy.errors import CommplanError, InputError, did_you_mean
from commplan.planner.strategy.files import is_command
from commplan.planner.strategy.yaml_file import flow_text

if TYPE_CHECKING:
    from commplan.planner.descriptions.setup import Setup

Overrides = Mapping[str, object] | Iterable[str]
"""Values by field, as in {"parallelism.tp": 4}; or texts, as `--set` takes them."""
Path = str | os.PathLike[str]
OnNote = Callable[[str], object]
"""Called with what reading the descriptions did that its reader should know."""
_P = ParamSpec("_P")
_R = TypeVar("_R")


def in_python(ask: Callable[_P, _R]) -> Callable[_P, _R]:
    """A question whose errors name its own arguments (`set`) where no command asks, and not options (`--set`)."""

    @wraps(ask)
    def asked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return ask(*args, **kwargs)
        except CommplanError as error:
            if not is_command():
                error.file, error.field = _argument(error.file), _argument(error.field)
            raise

    return asked


def _argument(name: str | None) -> str | None:
    return name if name is None else name.removeprefix("--")


def read(deployment: Path, overrides: Overrides | None, on_note: OnNote | None = None) -> Setup:
    """A deployment and all that it names."""
    from commplan.planner.descriptions.loader import load_setup

    setup = load_setup(name_of(deployment), override_texts(overrides))
    if on_note is not None:
        for note in setup.notes:
            on_note(note)
    return setup


def name_of(deployment: Path) -> str:
    """The name or path of a deployment or file, as a text."""
    name = os.fspath(deployment)
    if not name.strip() or "\0" in name:
        raise InputError("a name or path is expected", value=name)
    return name


def override_texts(overrides: Overrides | None) -> tuple[str, ...]:
    """Overrides as `FIELD=VALUE` texts."""
    if overrides is None:
        return ()
    if isinstance(overrides, str):
        return (overrides,)
    if isinstance(overrides, Mapping):
        return tuple(f"{_field(f, '--set')}={flow_text(plain(v, '--set', str(f)))}" for f, v in overrides.items())
    return _texts(overrides, "--set")


def varied(vary: Mapping[str, object] | Iterable[str]) -> tuple[str | tuple[str, str | tuple[Any, ...]], ...]:
    """Axes of a sweep: fields with their values in order; a text spells its values as `--vary` does."""
    if isinstance(vary, str):
        return (vary,)
    if isinstance(vary, Mapping):
        return tuple((_field(field, "--vary"), _values(str(field), values)) for field, values in vary.items())
    return _texts(vary, "--vary")


def _texts(given: Iterable[str], option: str) -> tuple[str, ...]:
    found = tuple(given) if isinstance(given, Iterable) else ()
    if not isinstance(given, Iterable) or not all(isinstance(text, str) for text in found):
        raise InputError(
            "fields with their values are expected, as in {'parallelism.tp': 4}", field=option, value=given
        )
    return found


def _values(field: str, values: object) -> str | tuple[Any, ...]:
    if isinstance(values, str) or values is None or isinstance(values, Mapping) or not isinstance(values, Iterable):
        return values if isinstance(values, str) else (plain(values, "--vary", field),)
    return tuple(plain(value, "--vary", field) for value in values)


def _field(name: object, option: str) -> str:
    if not isinstance(name, str) or "=" in name or not name.strip():
        raise InputError("a field is named as in parallelism.tp", file=option, field="field", value=name)
    return name


def plain(value: object, file: str, field: str) -> Any:
    """A value in the types that descriptions know: numbers of numpy become Python's, tuples lists, paths texts."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(key): plain(inner, file, field) for key, inner in value.items()}
    if isinstance(value, Iterable):
        return [plain(inner, file, field) for inner in value]
    raise InputError(
        "a number, text, truth value, None, list or mapping is expected", file=file, field=field, value=value
    )


def mode_of(setup: Setup, mode: str | None) -> str:
    """The forward mode asked about; the first of the deployment where none is named."""
    modes = setup.deployment.modes
    if mode is None:
        return next(iter(modes))
    if mode not in modes:
        raise InputError(f"the deployment has no such mode; {did_you_mean(mode, modes)}", field="--mode", value=mode)
    return mode


def count_of(tokens: object) -> int:
    """A token count that can be planned."""
    return whole(tokens, "--tokens", 1, MAX_TOKENS)


def layer_of(layer: object) -> int | None:
    """A number of a layer; whether the model has it, who looks for it says."""
    if layer is None or (isinstance(layer, Integral) and not isinstance(layer, bool)):
        return None if layer is None else int(layer)
    raise InputError("a whole number is expected", field="layer", value=layer)


def whole(value: object, field: str, least: int, most: int) -> int:
    """A whole number within bounds, of whatever type."""
    number = int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None
    if number is None or not least <= number <= most:
        raise InputError(f"a whole number from {least} to {most} is expected", field=field, value=value)
    return number
