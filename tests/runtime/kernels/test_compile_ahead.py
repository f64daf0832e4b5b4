"""Kernels are compiled by child processes before the first call, which finds them compiled."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton", reason="needs triton (Linux)")

from .compiled_launches import hopper, peers_of  # noqa: E402

Compiled = list[bool]
"""Of every compilation that this process asked for: was it found in the cache?"""


@pytest.fixture
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compiled:
    """Triton compiles for a Hopper GPU, on what counts as three cores, with nothing in its cache."""
    found: Compiled = []
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from commplan.runtime.kernels import compile_ahead

    monkeypatch.setattr(compile_ahead, "_cores", lambda: 3)
    monkeypatch.setattr(compile_ahead, "_PATIENCE_S", 600.0)
    monkeypatch.setattr(
        triton.knobs.compilation, "listener", lambda *, cache_hit, **_: found.append(cache_hit), raising=False
    )
    return found


def calls(peers: Any, width: int) -> None:
    """Of a width that no other test has: what is compiled once stays with this process."""
    x, weight = torch.zeros(4, width, dtype=torch.bfloat16), torch.zeros(width, dtype=torch.bfloat16)
    peers.all_reduce(x)
    peers.all_reduce_norm(x, None, weight, 1e-6)
    peers.int8_all_reduce(x, "gather")


@pytest.mark.slow
def test_what_calls_need_is_found_compiled_and_launched_only_afterwards(compiled: Compiled) -> None:
    from commplan.runtime.kernels.compile_ahead import compiled_ahead

    with hopper() as launches:
        peers = peers_of()
        with compiled_ahead([peers]):
            calls(peers, 1552)
            calls(peers, 1552)  # each kernel is compiled once
        assert compiled == [True] * 3, "children compile, this process finds"
        assert not launches
        calls(peers, 1552)
        assert (len(launches), len(compiled)) == (3, 3), "nothing is compiled any more"


@pytest.mark.slow
def test_where_children_die_this_process_compiles(compiled: Compiled, monkeypatch: pytest.MonkeyPatch) -> None:
    from commplan.runtime.kernels import compile_ahead

    def dies(jobs: Any) -> int:
        if child := os.fork():
            return child
        os._exit(9)

    monkeypatch.setattr(compile_ahead, "_fork", dies)
    with hopper() as launches:
        peers = peers_of()
        with compile_ahead.compiled_ahead([peers]):
            calls(peers, 2064)
        assert compiled == [False] * 3
        calls(peers, 2064)
        assert len(launches) == 3


def test_children_that_take_too_long_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    from commplan.runtime.kernels import compile_ahead

    children: list[int] = []
    fork = compile_ahead._fork
    monkeypatch.setattr(compile_ahead, "_fork", lambda jobs: children.append(child := fork(jobs)) or child)
    compile_ahead._work([[lambda: time.sleep(60)]] * 2, 0.05)
    assert len(children) == 2
    for child in children:  # this process may well have others, of other tests
        with pytest.raises(ChildProcessError):
            os.waitpid(child, os.WNOHANG)


def test_an_error_in_the_calls_comes_out_and_nothing_is_waited_for(compiled: Compiled) -> None:
    from commplan.runtime.kernels.compile_ahead import compiled_ahead

    def fails(peers: Any) -> None:
        with compiled_ahead([peers]):
            calls(peers, 4112)
            raise RuntimeError("in the calls")

    with hopper() as launches:
        peers = peers_of()
        with pytest.raises(RuntimeError, match="in the calls"):
            fails(peers)
        assert not compiled and not launches


@pytest.mark.slow
@pytest.mark.parametrize("fails", ["fork", "compiler"])
def test_whatever_fails_calls_compile_as_ever_afterwards(
    fails: str, compiled: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    from commplan.runtime.kernels import compile_ahead

    def refused() -> int:
        raise OSError(11, "no more processes")

    with hopper() as launches:
        peers, width = peers_of(), 8208 if fails == "fork" else 16400
        with monkeypatch.context() as patch:
            if fails == "fork":
                patch.setattr(os, "fork", refused)
            else:
                patch.setattr(compile_ahead, "_do", lambda _, future: future.set_exception(RuntimeError("it is ill")))
            with compile_ahead.compiled_ahead([peers]):
                calls(peers, width)
        assert not launches
        with compile_ahead.compiled_ahead([peers]):
            pass  # nothing of the first is left
        calls(peers, width)
        assert (len(launches), len(compiled)) == (3, 3)


@pytest.mark.slow
def test_a_kernel_of_others_in_there_is_compiled_and_launched_as_ever(compiled: Compiled) -> None:
    from commplan.runtime.kernels.add_rms_norm import rms_norm
    from commplan.runtime.kernels.compile_ahead import compiled_ahead

    with hopper() as launches:
        peers = peers_of()
        with compiled_ahead([peers]):
            rms_norm(torch.zeros(2, 32832, dtype=torch.bfloat16), torch.zeros(32832, dtype=torch.bfloat16), 1e-6)
            assert (len(launches), compiled) == (1, [False])
