"""Ranks tell each other JSON, over a store that listens where MASTER_ADDR says and nowhere else."""

from __future__ import annotations

import ipaddress
import json
import os
import pickle
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest

from commplan.runtime.errors import BoundaryError, RefusedError
from commplan.runtime.ranks.agreement import from_json, together
from commplan.runtime.ranks.rendezvous import store_of_environment
from commplan.runtime.ranks.spawning import run_ranks

from ..world import RankWorld
from .exchange import listening, tell, tell_bytes, where_it_listens

pytestmark = pytest.mark.slow

Worlds = Callable[[int], RankWorld]


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`alone(MASTER_ADDR=...)`: the store that rank 0 of one makes under these variables."""

    def store(**environment: str) -> Any:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = str(found.getsockname()[1])
        for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_PORT": port, **environment}.items():
            monkeypatch.setenv(name, value)
        return store_of_environment(10.0)[0]

    return store


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ranks_of_one_host_listen_on_loopback_alone() -> None:
    by_rank = run_ranks(where_it_listens, 2, timeout_s=120)
    addresses = [address for found in by_rank for address in found]
    assert by_rank[0]
    assert all(ipaddress.ip_address(address).is_loopback for address in addresses), by_rank


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("environment", "address"),
    [
        ({"MASTER_ADDR": "127.0.0.1"}, "127.0.0.1"),
        ({"MASTER_ADDR": "127.0.0.2"}, "127.0.0.2"),
        ({"MASTER_ADDR": "127.0.0.2", "COMMPLAN_LISTEN": "127.0.0.2"}, "127.0.0.2"),
    ],
)
def test_the_store_listens_where_the_user_says(
    environment: dict[str, str], address: str, alone: Callable[..., Any]
) -> None:
    before = listening()
    store = alone(**environment)
    store.set("a", "b")
    assert sorted(listening()) == sorted([*before, address])


@pytest.mark.parametrize(
    "environment", [{"MASTER_ADDR": "192.0.2.1"}, {"MASTER_ADDR": "127.0.0.1", "COMMPLAN_LISTEN": "192.0.2.1"}]
)
def test_an_address_of_another_host_is_an_error_that_names_the_way_out(
    environment: dict[str, str], alone: Callable[..., Any]
) -> None:
    with pytest.raises(BoundaryError, match=r"cannot listen on 192\.0\.2\.1.*COMMPLAN_LISTEN"):
        alone(**environment)


@pytest.mark.parametrize("port", ["70000", "-1", "x", ""])
def test_a_port_that_is_none_is_an_error_at_once(port: str, alone: Callable[..., Any]) -> None:
    before = listening()
    with pytest.raises(BoundaryError, match="not all of 1 ranks came"):
        alone(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    assert listening() == before


def test_a_taken_port_is_an_error_at_once(alone: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(BoundaryError, match="already in use"):
        alone(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(taken.getsockname()[1]))


VALUES: list[list[Any]] = [
    ["a", "b"],
    [None, None],
    [{"plan": "0" * 16, "names": ["é", "漢字", "\u202e"]}, {}],
    [["x" * 100_000], 1],
    [[None, {"dtype": "bf16"}], ["rank 1 cannot", {}]],
    [1.5, 2**60],
]


@pytest.mark.parametrize("values", VALUES, ids=lambda values: ascii(values)[:40])
def test_every_rank_gets_what_every_rank_told(values: list[Any], world: Worlds) -> None:
    assert world(2).run(tell, values) == [values, values]


@pytest.mark.parametrize("length", [0, -1, 2**40])
def test_a_length_that_no_rank_may_tell_is_an_error(length: int, world: Worlds) -> None:
    told, _ = world(2).run(tell_bytes, length)
    assert told.startswith("BoundaryError: ")
    assert str(length) in told


class Harmful:
    """Unpickling it would end this process."""

    def __reduce__(self) -> Any:
        return os._exit, (1,)


@pytest.mark.parametrize(
    "told", [pickle.dumps(Harmful()), b"", b"\xff", b"{", b"[" * 100_000, b"NaN", b'{"a": 1, "a": 2}']
)
def test_what_is_not_json_is_an_error_that_names_the_rank(told: bytes) -> None:
    with pytest.raises(BoundaryError, match="rank 3 tells what is not JSON"):
        from_json(told, 3)


@pytest.mark.parametrize("told", [None, [], "text", [None], [None, {}, 1], [1, {}], [None, []], [None, {"a": 1}]])
def test_a_rank_that_brings_another_shape_is_an_error_on_every_rank(told: Any) -> None:
    with pytest.raises(BoundaryError, match="rank 1 runs another version"), together(lambda mine: [mine, told]):
        pass


def test_a_rank_that_cannot_go_on_is_still_told_by_its_reason() -> None:
    with (
        pytest.raises(RefusedError, match="rank 1 cannot go on: no such file"),
        together(lambda mine: json.loads(json.dumps([mine, ["no such file", {}]]))),
    ):
        pass
