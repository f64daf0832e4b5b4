"""What a strategy file was made for, read again: its deployment with its overrides, for its executor.

A file holds fingerprints of what it was made for. What is another thing today, or by what a user sets, is said in
words: a price of another machine may be asked for, and must not pass for the file's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path

from ..descriptions.loader import load_setup, preset_names
from ..descriptions.setup import Setup
from ..strategy.errors import CommplanError, InputError
from ..strategy.file import RangePlan, StrategyFile
from ..strategy.file.document import STRATEGY_SCHEMA
from ..strategy.files import read_text
from ..strategy.yaml_file import flow_text, parse_yaml
from .to_file import with_stamps

SHARE = 0.0005
"""Of a step: less than this, and a prediction is the one that the file holds."""
_PARTS = ("model", "hardware", "deployment")
_SPLIT = ("tp", "attn_dp", "ep", "moe_backend", "pp")


@dataclass(frozen=True)
class MadeFor:
    """The setup of a strategy file.

    deployment  preset or path, and with it:
    overrides   as `load_setup` takes them, the file's own first
    differs     what of it is not what the file was made for, a sentence each, without a full stop
    """

    setup: Setup
    deployment: str
    overrides: tuple[str, ...]
    differs: tuple[str, ...]

    @property
    def notes(self) -> list[str]:
        """What differs, for whoever is told times."""
        return [f"{each}: times here are not the file's" for each in self.differs]

    @property
    def why_not_told(self) -> str:
        """Why a prediction of the file may be another than its ops take here."""
        return "what it was made for has changed" if self.differs else "it was edited, or planned by another version"

    def load(self, *more: str) -> Setup:
        """The setup with more overrides."""
        return load_setup(self.deployment, (*self.overrides, *more))


def made_for(
    strategy: StrategyFile,
    file: str,
    deployment: str | None,
    overrides: tuple[str, ...] = (),
    how: str = "with --deployment",
) -> MadeFor:
    """The setup that a file was made for, with what a user overrides in it; `deployment` where it is no preset.

    how  the deployment is named, for the error that asks for it
    """
    name = deployment or _preset_of(strategy, file, how)
    _same_executor(strategy, file, overrides)
    own = _own_overrides(strategy)
    texts = (*own, *overrides)
    try:
        setup = load_setup(name, texts)
    except InputError as error:
        if (other := _loaded(name, overrides)) is not None:
            refuse_other_model(strategy, other, file)
        raise _blamed(error, strategy, file, overrides) from None
    own_setup = _loaded(name, own) if overrides else None  # to see whether the user's make the difference
    return MadeFor(setup, name, texts, tuple(_differences(strategy, setup, own_setup, overrides)))


def is_strategy_file(path: str) -> bool:
    """True where a strategy file stands in place of a deployment."""
    return Path(path).is_file() and read_text(path).startswith(f"schema: {STRATEGY_SCHEMA.rpartition('/')[0]}/")


def contradictions(strategy: StrategyFile, setup: Setup) -> Iterator[InputError]:
    """What the head of a file says otherwise than what its own fingerprints are of: it was edited by hand."""
    fresh = with_stamps(setup, {})
    kept = [part for part in _PARTS if getattr(strategy, part).fingerprint == setup.fingerprints[part]]
    told = [(part, each.name) for part in kept for each in fields(getattr(fresh, part))]
    names = [f"{part}.{name}" for part, name in told if name not in ("name", "role")]  # a copy may be called otherwise
    if "deployment" in kept:
        names += ["model.role", *(f"parallelism.{name}" for name in _SPLIT)]
    for name in names:
        said, is_so = (attrgetter(name)(each) for each in (strategy, fresh))
        if said != is_so:
            said, is_so = (sorted(each) if isinstance(each, frozenset) else each for each in (said, is_so))
            yield InputError(f"what the file was made for has {is_so}: it was edited by hand", field=name, value=said)


def refuse_other_model(strategy: StrategyFile, setup: Setup, file: str) -> None:
    """Raise InputError where a file was made for another model than a setup has."""
    if strategy.model.fingerprint != setup.fingerprints["model"]:
        raise InputError(
            f"made for {strategy.model.name}, not for this deployment's {setup.model.name}",
            file=file,
            field="model.fingerprint",
            value=strategy.model.fingerprint,
        )


def told_otherwise(mode: str, chosen: RangePlan, tokens: int, step_us: float) -> str:
    """That a file predicts another step of a range than its ops take, without a full stop; empty where it does not."""
    told = chosen.predicted
    if told is None or told.tokens != tokens or abs(told.step_us - step_us) <= max(SHARE * step_us, 0.1):
        return ""
    return (
        f"{mode} {chosen.first}-{chosen.last}: the file predicts {told.step_us:,.1f} us at {tokens} tokens, and its "
        f"ops take {step_us:,.1f} here"
    )


def _preset_of(strategy: StrategyFile, file: str, how: str) -> str:
    if strategy.deployment.name in preset_names("deployments"):
        return strategy.deployment.name
    raise InputError(
        f"the deployment is no preset: name its file {how}",
        file=file,
        field="deployment.name",
        value=strategy.deployment.name,
    )


def _own_overrides(strategy: StrategyFile) -> tuple[str, ...]:
    """The file's, as `--set` would give them. Its executor stands apart, in older files too, and has the last word."""
    given = {field: value for field, value in strategy.overrides.items() if field != "executor"}
    return tuple(f"{field}={flow_text(value)}" for field, value in (given | {"executor": strategy.executor}).items())


def _same_executor(strategy: StrategyFile, file: str, overrides: tuple[str, ...]) -> None:
    for text in overrides:
        field, _, value = text.partition("=")
        if field.strip() == "executor" and value.strip() and parse_yaml(value) != strategy.executor:
            raise InputError(
                f"the file was made for another executor than --set executor={value.strip()}: leave that out, or plan "
                "again with it",
                file=file,
                field="executor",
                value=strategy.executor,
            )


def _fields(overrides: tuple[str, ...]) -> list[str]:
    return list(dict.fromkeys(text.partition("=")[0].strip() for text in overrides))


def _blamed(error: InputError, strategy: StrategyFile, file: str, overrides: tuple[str, ...]) -> InputError:
    """An error of what `--set` gave, said of the strategy file where that gave it."""
    field = error.field or ""
    if error.file == "--set" and not any(_within(field, given) for given in _fields(overrides)):
        if any(_within(field, given) for given in strategy.overrides if given != "executor"):
            error.file, error.field = file, f"overrides.{field}"
        elif _within(field, "executor"):
            error.file = file
    return error


def _within(field: str, given: str) -> bool:
    return field == given or field.startswith((f"{given}.", f"{given}["))


# ---- what differs ----------------------------------------------------------------------------------------------------


def _loaded(name: str, overrides: tuple[str, ...]) -> Setup | None:
    try:
        return load_setup(name, overrides)
    except CommplanError:
        return None


def _differences(
    strategy: StrategyFile, setup: Setup, without: Setup | None, overrides: tuple[str, ...]
) -> Iterator[str]:
    for part in _PARTS:
        then, now = getattr(strategy, part), getattr(setup, part)
        if then.fingerprint == setup.fingerprints[part]:
            continue
        if without is not None and then.fingerprint == without.fingerprints[part]:
            fields = ", ".join(field for field in _fields(overrides) if _part_of(field) == part)
            why = f"the {part} has changed by --set {fields or ', '.join(_fields(overrides))}"
        elif then.name != now.name:
            why = f"the {part} is {now.name}, and the file was made for {then.name}"
        else:
            why = f"the {part} has changed since the file was planned{_in_what(part, strategy, setup)}"
        yield why


def _part_of(field: str) -> str:
    head = field.partition(".")[0]
    return head if head in _PARTS else "deployment"


def _in_what(part: str, strategy: StrategyFile, setup: Setup) -> str:
    """What a file holds of its deployment beside the fingerprint, where that is another; a guess where none is."""
    if part != "deployment":
        return ""
    p, deployment = strategy.parallelism, setup.deployment
    pairs = [
        *((f"parallelism.{n}", getattr(p, n), getattr(setup.parallelism, n)) for n in ("tp", "attn_dp", "ep")),
        ("parallelism.moe_backend", p.moe_backend, setup.parallelism.moe_backend),
        ("numerics.loosest", strategy.numerics, deployment.numerics.loosest),
        ("dtypes.activations", strategy.deployment.activations, deployment.dtypes.activations),
    ]
    told = [f"{field} was {then} and is {now}" for field, then, now in pairs if then != now]
    for mode, ranges in strategy.modes.items():
        then, spec = (ranges[0].first, ranges[-1].last), deployment.modes.get(mode)
        now = None if spec is None else tuple(spec.tokens)
        if then != now:
            told.append(f"modes.{mode}.tokens were {list(then)} and are {None if now is None else list(now)}")
    if told:
        return f" ({', '.join(told)})"
    return "" if strategy.overrides else " (or it was planned with --set, which older files do not hold: give it here)"
