"""Every number on every command line has bounds, and one outside is refused by name before anything is read."""

from __future__ import annotations

import math
from collections.abc import Iterator

import click
import pytest

from commplan.planner.cli import commplan
from commplan.planner.strategy.command_line.option_types import Bounded

from .commandline import refused, run


def parameters() -> Iterator[tuple[str, click.Command, click.Parameter]]:
    """Every parameter of every command, found as click finds it."""
    context = click.Context(commplan)
    waiting: list[tuple[str, click.Command | None]] = [
        (name, commplan.get_command(context, name)) for name in commplan.list_commands(context)
    ]
    while waiting:
        name, command = waiting.pop()
        assert command is not None
        if isinstance(command, click.Group):
            waiting += [
                (f"{name} {inner}", command.get_command(context, inner)) for inner in command.list_commands(context)
            ]
        for parameter in command.params:
            yield name, command, parameter


NUMERIC = [
    pytest.param(name, command, parameter, parameter.type, id=f"{name} {parameter.opts[-1]}")
    for name, command, parameter in parameters()
    if isinstance(parameter.type, Bounded)
]


def test_the_walk_finds_the_numeric_options() -> None:
    assert {"check --timeout", "check --seed", "run --max-new-tokens", "counters --timeout", "verify --rounds"} <= {
        case.id for case in NUMERIC
    }


def test_no_option_of_any_command_is_a_number_without_bounds() -> None:
    plain = (click.types.IntParamType, click.types.FloatParamType)  # ranges of click's are these too: NaN is in them
    loose = [f"{name} {p.opts[-1]}" for name, _, p in parameters() if isinstance(p.type, plain)]
    assert loose == []
    counted = [f"{name} {p.opts[-1]}" for name, _, p in parameters() if getattr(p, "count", False)]
    assert counted == []


def test_a_number_that_looks_like_a_text_option_is_none() -> None:
    """A default that is a number belongs to a numeric type."""
    wrong = [
        f"{name} {p.opts[-1]}"
        for name, _, p in parameters()
        if type(p.default) in (int, float) and not isinstance(p.type, Bounded)
    ]
    assert wrong == []


@pytest.mark.parametrize(("name", "command", "parameter", "kind"), NUMERIC)
def test_bounds_are_finite_and_the_default_lies_within(
    name: str, command: click.Command, parameter: click.Parameter, kind: Bounded
) -> None:
    assert math.isfinite(kind.least) and math.isfinite(kind.most)
    assert kind.least < kind.most < 2**64
    if type(parameter.default) in (int, float):
        assert kind.convert(parameter.default, parameter, None) == parameter.default


@pytest.mark.parametrize(
    "text", ["nan", "inf", "-inf", "1e400", "-5", "", " ", "x", "1,5", "huge", "0x10", "above", "below"]
)
@pytest.mark.parametrize(("name", "command", "parameter", "kind"), NUMERIC)
def test_a_number_outside_is_refused_with_the_options_name_the_value_and_the_range(
    name: str, command: click.Command, parameter: click.Parameter, kind: Bounded, text: str
) -> None:
    text = {"huge": "9" * 5000, "above": str(kind.most * 2), "below": str(kind.least - 1)}.get(text, text)
    others = [
        ["sglang"] if isinstance(p.type, click.Choice) else ["x"]
        for p in command.params
        if isinstance(p, click.Argument)
    ]
    for p in command.params:
        if isinstance(p, click.Option) and p.required:
            others.append([p.opts[-1], "http://127.0.0.1:1"])
    error = refused(*name.split(), *(word for words in others for word in words), f"{parameter.opts[-1]}={text}")
    assert (error["field"], error["kind"]) == (parameter.opts[-1], "usage")
    assert error["value"] == (text if len(text) <= 1000 else text[:1000] + "...")
    bounds = [f"{bound:g}" if isinstance(bound, float) else str(bound) for bound in (kind.least, kind.most)]
    assert f"from {bounds[0]} to {bounds[1]} is expected" in error["message"]


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:99999",
        "http://127.0.0.1:0",
        "http://127.0.0.1:-1",
        "http://127.0.0.1:x",
        "http://",
        "",
        "127.0.0.1:1",
        "file:///etc/hosts",
        "ftp://127.0.0.1:1",
        "http://[::1",
        "http://127.0.0.1 x:1",
        "http://127.0.0.1:1\n",
    ],
)
def test_an_address_of_no_server_is_refused(address: str) -> None:
    error = refused("counters", "--server", address)
    assert error["field"] == "--server"
    assert "a port from 1 to 65535" in error["message"]


def test_help_says_that_they_are_numbers() -> None:
    assert "--timeout NUMBER" in run("check", "--help").out
    assert "--seed INTEGER" in run("check", "--help").out
