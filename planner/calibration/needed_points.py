"""What to measure for a deployment: exactly the collectives, kernels and GEMMs that its cost model asks about.

A point is a plain tuple (kind, name, group_size, dtype, rows, width, columns), as the runtime's `Point`: the planner
decides what is measured, the runtime measures it. A kernel is named by its step, of a wire format as in
`quantize.int8`. An op that is one kernel of commplan's has

  kind        its impl, as in the executor's file
  name        the op, with its algorithm where it is told one: `int8_all_reduce.gather`, `all_reduce.one_shot` beside
              `all_reduce`, which chooses by itself; a latent gather is `all_gather`; with its format where it names
              one: `quantized_all_reduce.two_shot.int8.128`
  rows        of the whole message: of each rank's partial, of what a gather gives, of all DP groups for a pair
  width       elements per row: the hidden size, or that of the latents
  columns     0; of a pair the number of DP groups

and is measured wherever the deployment's machine might run it, since without a table it is never planned. Beside sums
of commplan's, kernels of other libraries are measured on the same rows (RIVALS; kind their impl, name `all_reduce`):
what the servers that a plan is held against sum with, and what executors may offer.

A composed sum has the same but for its name, which says its format and pieces too (`composed_points`). It is measured
with the norm inside where that is what plans use, in the formats that the deployment lets travel, by the algorithm that
brings the least bytes: a gather over two ranks, else two_shot. Through the host's memory there is but one, and it is
measured where devices do not reach each other, or a rule of the deployment asks for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..cost.op_costs import OpCosts
from ..cost.terms import Composed, Gemm, OneKernel, Passes, Term, Wire
from ..descriptions.calibration import COLLECTIVES
from ..descriptions.deployment import DTYPE_BYTES
from ..descriptions.setup import Setup
from ..executors import Executor, Kernels
from ..search.graph import Restriction
from ..search.planning import ModePlanner
from ..strategy.composed_points import parse_point, spell_point
from ..strategy.errors import InputError
from ..strategy.op_kinds import KINDS

Point = tuple[str, str, int, str, int, int, int]

EVERYTHING = Restriction(policy=False, unmeasured=True)
COLLECTIVE_WIDTH = 64  # elements per row of a collective's buffer, which has no shape of its own
_SMALLEST_BYTES = 1024
_FINE_BYTES = (1 << 17, 1 << 26)  # between these, libraries change protocols: two points per power of two
_FINE_ROWS = 128  # from here on kernels of our own change algorithms: two points per power of two
FUSED_RIVAL = "flashinfer_fused"
"""Of the kernels below the one that does the add and the norm too, and so works on whole rows."""
RIVALS = ("torch_one_shot", "torch_two_shot", "flashinfer", FUSED_RIVAL)
"""All-reduce kernels of other libraries, by the impl that executors call them."""
_PAIR = 2
_ROWS_OF_A_PIECE = 64  # fewer are never worth a call of the library
_UNWRITTEN_STEPS = ("fold_residual", "copy", "zero_fill")


def points_of(setups: Iterable[Setup]) -> list[Point]:
    """All points of some deployments, each once."""
    found: dict[Point, None] = {}
    largest: dict[tuple[int, str], int] = {}
    most_rows: dict[_OneKernel, int] = {}
    most_pieces: dict[_OneKernel, int] = {}
    for setup in setups:
        for mode in setup.deployment.modes:
            planner = ModePlanner(setup, mode)
            tokens = setup.deployment.modes[mode].tokens[1]
            for term in dict.fromkeys(t for edge in planner.graph(EVERYTHING).edges for t in edge.terms):
                if isinstance(term.work, OneKernel):
                    key, rows = _one_kernel(setup, term.work, term.width), planner.costs.rows(term.rows, tokens)
                    most_rows[key] = max(most_rows.get(key, 1), rows)
                if isinstance(term.work, Composed) and _is_planned(setup, term.work):
                    composed = _composed(setup, term.work, term.width)
                    rows = _rows_taken(setup, term.work, term.width, planner.costs.rows(term.rows, tokens))
                    most_pieces[composed] = max(most_pieces.get(composed, 1), rows)
                for point in _of_term(setup, planner.costs, term, tokens, largest):
                    found[point] = None
        found |= dict.fromkeys(_of_gemms(setup))
    return [
        *_collectives(largest),
        *_own_kernels(most_rows),
        *_rivals(most_rows),
        *_composed_sums(most_pieces),
        *found,
    ]


def _of_term(
    setup: Setup, costs: OpCosts, term: Term, tokens: int, largest: dict[tuple[int, str], int]
) -> Iterator[Point]:
    dtype, work = setup.deployment.dtypes.activations, term.work
    rows = costs.rows(term.rows, tokens) or tokens
    if isinstance(work, Wire):
        size = setup.parallelism.group_size(work.group)
        most = int(rows * term.width * work.bytes_per_element)
        largest[size, dtype] = max(largest.get((size, dtype), 0), most)
    elif isinstance(work, Passes):
        for step in _steps_of(setup.executor, setup.hardware.backend, work.kernels):
            align = work.group_size if step.partition(".")[0] == "reduce_shard" else 1
            for count in _row_counts(rows):
                yield ("kernel", step, work.group_size, dtype, -(-count // align) * align, term.width, 0)
    elif isinstance(work, Gemm) and setup.deployment.dtypes.weights == dtype:
        for count in _row_counts(rows):
            yield ("gemm", "linear", 1, dtype, count, term.width, work.columns)


def _steps_of(executor: Executor, impl: str, kernels: Kernels) -> list[str]:
    """The steps that launch these kernels: one, or the same one several times."""
    for step, known in executor.steps(impl).items():
        if kernels == known or (len(known) == 1 and set(kernels) == set(known)):
            return [step]
    return [kernel.name for kernel in kernels if kernel.name in _UNWRITTEN_STEPS]


def _of_gemms(setup: Setup) -> Iterator[Point]:
    """The projections that no choice changes: they make a step's time, not its plan."""
    m, p, dtype = setup.model, setup.parallelism, setup.deployment.dtypes.activations
    if setup.deployment.dtypes.weights != dtype or m.is_mla or m.compress_ratios:
        return
    heads, kv = m.num_attention_heads // p.attn_tp, max(1, m.num_key_value_heads // p.attn_tp)
    values = heads * m.value_head_dim
    projected = heads * m.head_dim + kv * (m.head_dim + m.value_head_dim) + values * m.attention_output_gate
    shapes = [(m.hidden_size, projected), (values, m.hidden_size)]
    if m.intermediate_size:
        columns = m.intermediate_size // p.tp
        shapes += [(m.hidden_size, 2 * columns), (columns, m.hidden_size)]
    most = max(mode.tokens[1] for mode in setup.deployment.modes.values())
    for inner, columns in shapes:
        for count in _row_counts(most):
            yield ("gemm", "linear", 1, dtype, count, inner, columns)


def _collectives(largest: dict[tuple[int, str], int]) -> Iterator[Point]:
    for (size, dtype), most in sorted(largest.items()):
        if size == 1:
            continue
        row = COLLECTIVE_WIDTH * DTYPE_BYTES[dtype]
        for op in COLLECTIVES:
            for bytes_ in _sizes(most):
                rows = -(-round(bytes_ / row) // size) * size
                yield ("collective", op, size, dtype, rows, COLLECTIVE_WIDTH, 0)


_OneKernel = tuple[str, str, int, str, int, int]  # a point without its rows


def _one_kernel(setup: Setup, work: OneKernel, width: int) -> _OneKernel:
    name = ".".join(filter(None, (work.op, work.algorithm, work.wire, work.scale_group)))
    return (work.impl, name, setup.parallelism.group_size(work.group), work.dtype, width, work.attn_dp or 0)


def _own_kernels(most_rows: dict[_OneKernel, int]) -> Iterator[Point]:
    for (impl, name, size, dtype, width, columns), most in sorted(most_rows.items()):
        kind = KINDS[name.partition(".")[0]]
        align = size if kind.gathers or columns else 1  # shards of equal size
        counts = {-(-count // align) * align for count in _fine_row_counts(most)}
        for rows in sorted(counts):
            yield (impl, name, size, dtype, rows, width, columns)


def _rivals(most_rows: dict[_OneKernel, int]) -> Iterator[Point]:
    """On rows of commplan's plain sums, by powers of two."""
    widths: dict[tuple[str, int, str, int], int] = {}
    for (_, name, group_size, type_, columns, _), most in most_rows.items():
        kind = KINDS.get(name)
        if kind is not None and kind.is_plain and kind.folds:
            key = (name, group_size, type_, columns)
            widths[key] = max(widths.get(key, 0), most)
    for (name, size, dtype, width), most in sorted(widths.items()):
        for impl in RIVALS:
            for rows in _row_counts(most):
                yield (impl, name, size, dtype, rows, width, 0)


def _is_planned(setup: Setup, work: Composed) -> bool:
    """True for a composed sum as plans of the deployment may have it."""
    kind, wire = KINDS[work.op], KINDS[work.op].format_of(work.wire, work.scale_group)
    numerics, ranks = setup.deployment.numerics, setup.parallelism.group_size(work.group)
    apart = setup.model.residual_streams > 1 or setup.parallelism.pp > 1
    impl, by_pair = setup.impls[work.impl], "gather" if ranks == _PAIR else "two_shot"
    as_it_is = not kind.is_quantized and (numerics.loosest != "exact" or work.algorithm in kind.own_algorithms)
    return (
        (as_it_is or (numerics.loosest == "quantized" and wire is not None and wire.name in numerics.wire_formats))
        and (impl.is_through_host or work.algorithm == by_pair)
        and (apart or impl.fuses_norm)
    )


def _rows_taken(setup: Setup, work: Composed, width: int, rows: int) -> int:
    """Of the largest message, those that the impl takes by this algorithm."""
    most = setup.impls[work.impl].most_bytes(work.algorithm)
    return rows if most is None else max(1, min(rows, int(most // (width * work.bytes_per_element))))


def _composed(setup: Setup, work: Composed, width: int) -> _OneKernel:
    name = spell_point(work.op, work.algorithm, work.wire, work.scale_group, work.pieces)
    return (work.impl, name, setup.parallelism.group_size(work.group), work.dtype, width, 0)


def _composed_sums(most_rows: dict[_OneKernel, int]) -> Iterator[Point]:
    for (impl, name, size, dtype, width, columns), most in sorted(most_rows.items()):
        op = parse_point(name, impl)
        pieces, align = op.pieces or 1, 1 if op.way.in_one_launch else size
        least = 1 if pieces == 1 else min(most // 2, pieces * _ROWS_OF_A_PIECE) or 1
        for rows in [count for count in _row_counts(most) if count >= least]:
            yield (impl, name, size, dtype, -(-rows // align) * align, width, columns)


def _fine_row_counts(most: int) -> Iterator[int]:
    """Powers of two with one more between where algorithms change, and the largest."""
    count = 1
    while count < most:
        yield count
        if count >= _FINE_ROWS and count * 3 // 2 < most:
            yield count * 3 // 2
        count *= 2
    yield most


def _sizes(most: int) -> list[int]:
    """Message sizes: powers of two, with one more between where protocols change, up to beyond the largest."""
    found, size = [], _SMALLEST_BYTES
    while size < 2 * most:
        found.append(size)
        if _FINE_BYTES[0] <= size < _FINE_BYTES[1]:
            found.append(round(size * 2**0.5))
        size *= 2
    return found


def _row_counts(most: int) -> list[int]:
    """Row counts: by fours up to 64, then by twos, and the largest."""
    found, count = [], 1
    while count < most:
        found.append(count)
        count *= 4 if count < 64 else 2
    return [*found, most]


def check_measurable(setups: list[Setup]) -> None:
    """One machine and one split for all deployments, run by an executor that is ours."""
    first = setups[0]
    for setup in setups:
        if not setup.executor.is_measurable:
            raise InputError(
                "only the kernels of commplan's own runtime can be measured; use --set executor=transformers",
                file=setup.file,
                field="executor",
                value=setup.executor.name,
            )
        for field, mine, other in (
            ("hardware", setup.hardware.name, first.hardware.name),
            ("parallelism.tp", setup.parallelism.tp, first.parallelism.tp),
        ):
            if mine != other:
                raise InputError(
                    f"{first.deployment.name} has {other}; calibrate one machine and one tp at a time",
                    file=setup.file,
                    field=field,
                    value=mine,
                )
