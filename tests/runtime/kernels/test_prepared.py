"""A call is launched as Triton itself would launch it, though pointers alone are looked at; the rest is refused."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from commplan.runtime.errors import RefusedError

pytest.importorskip("triton", reason="needs triton (Linux)")


from .compiled_launches import Launcher, compiled_code, hopper, peers_of

WIDTH, ROWS = 1040, 6
EPS = 1e-6
CALLS: dict[str, Callable[[Any, Tensor, Tensor, Tensor], Any]] = {
    "all_reduce": lambda p, x, r, w: p.all_reduce(x),
    "all_reduce_norm": lambda p, x, r, w: p.all_reduce_norm(x, r, w, EPS),
    "all_reduce_norm, no residual": lambda p, x, r, w: p.all_reduce_norm(x, None, w, EPS),
    "all_reduce_norm, reading ahead": lambda p, x, r, w: reading_ahead(p).all_reduce_norm(x, r, w, EPS),
    "int8 gather": lambda p, x, r, w: p.int8_all_reduce(x, "gather"),
    "int8 two_shot norm": lambda p, x, r, w: p.int8_all_reduce_norm(x, "two_shot", r, w, EPS),
    "reduce_scatter_norm": lambda p, x, r, w: p.reduce_scatter_norm(x, r[: -(-len(x) // 2)], w, EPS),
    "all_gather": lambda p, x, r, w: p.all_gather(x),
    "gather_sum": lambda p, x, r, w: p.gather_sum(x, 1),
    "scatter_sum": lambda p, x, r, w: p.scatter_sum(x, 1),
    "gather_sum, two shots": lambda p, x, r, w: p.gather_sum(x, 2, "two_shot"),
    "scatter_sum, two shots": lambda p, x, r, w: p.scatter_sum(x, 2, "two_shot"),
}


def rows(count: int = ROWS, width: int = WIDTH, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.zeros(count, width, dtype=dtype)


NEXT_WEIGHTS = rows(512)


def reading_ahead(peers: Any) -> Any:
    peers._bytes_ahead = 1 << 20
    peers.read_ahead(NEXT_WEIGHTS)
    return peers


def at_an_odd_address(x: Tensor) -> Tensor:
    return x.new_zeros(x.numel() + 1)[1:].view(x.shape)


def by_triton(launch: Any, arrays: tuple[Tensor, ...], group: tuple[Tensor, ...]) -> None:
    """The same launch with all that Triton looks at."""
    launch.kernel[(launch.programs,)](*arrays, *group, *launch.numbers, **launch.constants, **launch.options)


def plain(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(v.data_ptr() if isinstance(v, Tensor) else v for v in values)


def noted(call: str, x: Tensor, residual: Tensor, weight: Tensor, monkeypatch: pytest.MonkeyPatch) -> Any:
    """(launched by us, launched by Triton) for one call, each (hash of the kernel, flags, arguments)."""
    from commplan.runtime.kernels import peer_kernels

    planned: list[tuple[Any, tuple[Tensor, ...], tuple[Tensor, ...]]] = []
    inner = peer_kernels.prepare

    def watched(launch: Any, group: tuple[Tensor, ...]) -> Any:
        start = inner(launch, group)

        def both(*arrays: Tensor) -> None:
            whole = arrays if len(arrays) == launch.arrays else (arrays[0],) * 3 + (arrays[1],) * 2
            planned.append((launch, whole, group))
            start(*arrays)

        return both

    monkeypatch.setattr(peer_kernels, "prepare", watched)
    with hopper() as launches:
        peers = peers_of()
        CALLS[call](peers, x, residual, weight)
        CALLS[call](peers, x, residual, weight)
        assert len(planned) == 2, "each call launches one kernel"
        by_triton(*planned[1])
        first, second, theirs = launches
        assert first[2][:13] == second[2][:13], "what is kept is what was made"
        return second, theirs


def assert_same_launch(ours: Any, theirs: Any) -> None:
    """All but what hooks are told, and that an array is given as its address."""
    assert ours[0].hash() == theirs[0].hash()
    assert ours[2][:10] == theirs[2][:10]  # grid, stream, function, how it is launched
    assert plain(ours[2][13:]) == plain(theirs[2][13:])


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
def test_a_prepared_launch_is_what_triton_itself_would_launch(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = noted(call, rows(), rows(), rows()[0], monkeypatch)
    assert_same_launch(ours, theirs)
    assert ours[1] == theirs[1]


@pytest.mark.parametrize(
    ("version", "scratch", "by_itself"), [("3.6.1", 0, True), ("3.6.0", 16, False), ("99.0", 0, False)]
)
def test_a_launcher_that_is_not_known_or_allocates_scratch_is_asked_as_triton_asks_it(
    version: str, scratch: int, by_itself: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from commplan.runtime.kernels.prepared import _entry

    monkeypatch.setattr("triton.__version__", version)
    run = Launcher(None, SimpleNamespace(launch_cooperative_grid=False, launch_pdl=True))
    run.global_scratch_size = scratch
    call, head = _entry(SimpleNamespace(run=run, function=5, packed_metadata=(4, 1, 0)))
    assert (call is run.launch) == by_itself and (call is run) != by_itself
    assert head == (5, *((False, True, None, None) if by_itself else ()), (4, 1, 0), None, None, None)


@pytest.mark.slow
@pytest.mark.parametrize("odd", [(True, True, True), (False, True, False), (False, False, True)], ids=str)
def test_arrays_at_odd_addresses_get_the_kernel_compiled_for_them(
    odd: tuple[bool, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [at_an_odd_address(a) if o else a for a, o in zip((rows(), rows(), rows()[0].clone()), odd, strict=True)]
    assert_same_launch(*noted("all_reduce_norm", *given, monkeypatch))


@pytest.mark.slow
def test_one_kernel_serves_odd_and_even_addresses_in_turn_by_two_compilations() -> None:
    with hopper() as launches:
        peers, x = peers_of(), rows()
        for rows_now in (x, at_an_odd_address(x), x):
            peers.all_reduce(rows_now)
        aligned, odd, again = (source.hash() for source, _, _ in launches)
    assert aligned == again != odd


@pytest.mark.parametrize("norm", [False, True])
def test_a_sum_goes_by_the_algorithm_that_is_named_and_by_its_size_where_none_is(
    norm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from commplan.runtime.kernels import peer_kernels

    launched: list[str] = []
    monkeypatch.setattr(peer_kernels, "prepare", lambda launch, _: launched.append(launch.kernel.__name__) or print)
    peers = peers_of(world=4)
    for count in (1, 1000):
        for algorithm in (None, "one_shot", "two_shot"):
            if norm:
                peers.all_reduce_norm(rows(count), None, rows()[0], EPS, algorithm)
            else:
                peers.all_reduce(rows(count), algorithm)
    few, many = "one_shot_kernel", "two_shot_kernel"
    assert launched == [few, few, many, many, few, many]


@pytest.mark.slow
@pytest.mark.parametrize("dependent", ["off", "wait", "early"])
def test_a_kernel_waits_for_the_one_before_ahead_of_all_memory_where_it_may_start_sooner(
    dependent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from commplan.runtime.kernels import peer_kernels

    monkeypatch.setattr(peer_kernels, "dependence_on", lambda _: dependent)
    with hopper() as launches:
        peers = peers_of()
        for call in CALLS.values():
            call(peers, rows(), rows(), rows()[0])
        for source, metadata, _ in launches:
            assert metadata.launch_pdl == (dependent != "off")
            code = compiled_code(source)
            assert code.count("griddepcontrol.wait") == (dependent != "off"), source.name
            assert code.count("griddepcontrol.launch_dependents") == (dependent == "early"), source.name
            if dependent != "off":
                before = code[: code.index("griddepcontrol.wait")]
                touched = [w for w in ("ld.global", "st.global", "atom.", "ld.volatile", "red.") if w in before]
                assert not touched, source.name


def test_another_word_for_dependence_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMMPLAN_DEPENDENT_LAUNCH", "yes")
    with pytest.raises(RefusedError, match="off, wait, early") as raised:
        peers_of()
    assert (raised.value.field, raised.value.value) == ("COMMPLAN_DEPENDENT_LAUNCH", "yes")


def test_before_hopper_no_kernel_starts_before_the_last_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from commplan.runtime.kernels.prepared import dependence_on

    assert dependence_on(torch.device("cpu")) == "off"
    for capability, wanted in (((8, 9), "off"), ((9, 0), "early")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, c=capability: c)
        assert dependence_on(torch.device("cuda", 0)) == wanted


@pytest.mark.parametrize("op", ["all_reduce", "all_reduce.two_shot", "reduce_scatter", "all_gather"])
def test_to_a_graph_an_op_is_what_it_is_when_it_runs(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from commplan.runtime.kernels import custom_ops, peer_kernels

    def zeros(*arrays: Tensor) -> None:
        for result in arrays[1:] if len(arrays) == 2 else arrays[3:]:
            result.zero_()

    monkeypatch.setattr(peer_kernels, "prepare", lambda *_: zeros)
    peers, x = peers_of(), rows(7)
    torch.library.opcheck(custom_ops.rows, (x, peers.handle, op))
    if op != "all_gather":
        residual = rows(peers.rows_out(op, 7))
        for before in (None, residual):
            torch.library.opcheck(custom_ops.normed_rows, (x, before, x[0], EPS, peers.handle, op))


# ---- refusals ------------------------------------------------------------------------------------------------------


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Peers whose calls run nothing, and have met right arrays before."""
    from commplan.runtime.kernels import peer_kernels

    monkeypatch.setattr(peer_kernels, "prepare", lambda *_: lambda *_: None)
    made = peers_of()
    for call in CALLS.values():
        call(made, rows(), rows(), rows()[0])
    return made


@pytest.mark.parametrize(
    ("x", "field"),
    [
        (rows().float(), "x.dtype"),
        (torch.zeros(WIDTH, dtype=torch.bfloat16), "x.shape"),
        (rows()[None], "x.shape"),
        (rows(width=WIDTH + 1), "x.shape"),
        (rows(width=2 * WIDTH)[:, :WIDTH], "x.stride"),
        (rows().T.contiguous().T, "x.stride"),
    ],
    ids=["dtype", "a vector", "three dimensions", "width", "columns of a wider array", "transposed"],
)
def test_rows_that_fit_no_kernel_are_refused_by_every_op(x: Tensor, field: str, peers: Any) -> None:
    for name, call in CALLS.items():
        residual = rows(width=x.shape[-1], dtype=x.dtype)
        with pytest.raises(RefusedError) as raised:
            call(peers, x, residual, residual[0])
        assert raised.value.field == field, name


@pytest.mark.parametrize(
    ("residual", "weight", "field"),
    [
        (rows(ROWS - 1), rows()[0], "residual.shape"),
        (rows().half(), rows()[0], "residual.dtype"),
        (rows(width=2 * WIDTH)[:, :WIDTH], rows()[0], "residual.stride"),
        (rows(), rows(), "weight.shape"),
        (rows(), rows()[0, :64], "weight.shape"),
        (rows(), rows()[0].double(), "weight.dtype"),
        (rows(), rows(1, 2 * WIDTH)[0, ::2], "weight.stride"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_a_residual_or_weight_that_fits_no_kernel_is_refused(
    residual: Tensor, weight: Tensor, field: str, peers: Any
) -> None:
    for call in ("all_reduce_norm", "int8 two_shot norm"):
        with pytest.raises(RefusedError) as raised:
            CALLS[call](peers, rows(), residual, weight)
        assert raised.value.field == field, call


def test_rows_on_another_device_are_refused(peers: Any) -> None:
    gpu = torch.device("cuda", 0)
    peers._device_index, peers._state = 0, SimpleNamespace(device=gpu)
    for name, call in CALLS.items():
        with pytest.raises(RefusedError, match="run on cuda:0") as raised:
            call(peers, rows(), rows(), rows()[0])
        assert raised.value.field == "x.device", name


def test_no_rows_launch_nothing(peers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from commplan.runtime.kernels import peer_kernels

    monkeypatch.setattr(peer_kernels, "prepare", None)
    assert peers.all_reduce(rows(0)).shape == (0, WIDTH)
    assert [a.shape for a in peers.all_reduce_norm(rows(0), rows(0), rows()[0], EPS)] == [(0, WIDTH)] * 2


def test_what_is_kept_ready_is_bounded(peers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from commplan.runtime.kernels import peer_kernels

    monkeypatch.setattr(peer_kernels, "_MOST_READY", 20)
    for count in range(1, 50):
        peers.all_reduce(rows(count))
    assert len(peers._ready) <= 20
