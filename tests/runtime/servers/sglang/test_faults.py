"""Faults while a server runs, without a server: what its hooks do about them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from commplan.runtime.errors import BoundaryError, RefusedError
from commplan.runtime.servers.forward import Forwards
from commplan.runtime.servers.sglang.scheduler import SchedulerHooks

from .fakes import bind_to, strategy


def hooks_with(check: Any) -> SchedulerHooks:
    hooks = SchedulerHooks(strategy(), "plan.yaml")
    binding: Any = SimpleNamespace(peers=SimpleNamespace(check=check))
    hooks.binding = binding
    return hooks


def gives_up() -> None:
    raise BoundaryError("a peer has sent nothing for half a minute", where="commplan_triton")


def test_no_token_leaves_once_a_kernel_has_given_up(capsys: pytest.CaptureFixture[str]) -> None:
    left: list[object] = []
    with pytest.raises(BoundaryError, match="sent nothing"):  # which SGLang answers by ending every rank
        hooks_with(gives_up).around_output(left.append, "a token")
    assert left == []
    assert capsys.readouterr().err == "commplan: error: commplan_triton: a peer has sent nothing for half a minute\n"


def test_tokens_leave_as_long_as_every_rank_comes() -> None:
    left: list[object] = []
    hooks_with(lambda: None).around_output(left.append, "a token")
    assert left == ["a token"]


def test_what_kernels_share_is_taken_with_the_weights_before_the_cache_gets_the_rest() -> None:
    hooks, order = hooks_with(lambda: None), []
    make = bind_to(hooks.file)
    hooks.forwards = Forwards(hooks.file, lambda counters: order.append("shared") or make(counters))  # type: ignore[func-returns-value]
    hooks.around_load(lambda runner: order.append("weights"), None)
    hooks.forwards.bind()
    assert order == ["weights", "shared"]


def test_kernels_that_cannot_be_made_end_the_server_at_start(capsys: pytest.CaptureFixture[str]) -> None:
    hooks = hooks_with(lambda: None)

    def cannot(counters: Any) -> Any:
        raise RefusedError("devices do not read each other's memory", field="impl", value="commplan_triton")

    hooks.forwards = Forwards(hooks.file, cannot)
    with pytest.raises(SystemExit) as ended:
        hooks.around_load(lambda runner: None, None)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("commplan: error: impl: devices do not read")
