"""What strategies offer at a boundary, with the impls of the executor that can perform it on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

from ..cost.op_costs import OpCosts
from ..cost.terms import Term
from ..descriptions.setup import Setup
from ..executors import Impl
from ..executors.launches import ONE_LAUNCH
from ..strategies import PLAIN, Offer, Strategy, offered_sums, strategies
from ..strategy.errors import NoLegalPlanError
from ..strategy.impl_rules import RESIDUAL_OUT
from ..strategy.layout import IllegalOpError, LayerShape
from ..strategy.op_kinds import PUSHED_INNER
from ..strategy.ops import Op
from ..strategy.vendors import BACKENDS
from ..strategy.words import GroupName
from .graph import ANY, Restriction

PIECES = (2, 4, 8)
"""Into which a composed sum may be cut, beside none: more would each be a library call for less than is hidden."""
Candidate = tuple[Op, str | None]
"""An offered op, and why it has no impl or no place."""


@dataclass(frozen=True)
class Offers:
    """The offered ops of one forward mode of a setup."""

    setup: Setup
    costs: OpCosts
    mode: str
    _known: dict[tuple[str, str, Restriction], tuple[Candidate, ...]] = field(default_factory=dict, compare=False)

    def strategies(self, restriction: Restriction) -> tuple[Strategy, ...]:
        """The strategies of a restriction that have a place here; plain all-reduce where none has."""
        found = strategies()
        names = restriction.strategies if restriction.strategies is not None else tuple(found)
        chosen = []
        for name in names:
            why = found[name].needs(self.setup.parallelism)
            if why is None:
                chosen.append(found[name])
            elif len(names) == 1 and self.setup.parallelism.tp > 1:
                raise NoLegalPlanError(why, field="strategy", value=name)
        return tuple(chosen) or (found[PLAIN],)

    def candidates(self, boundary: str, chosen: tuple[Strategy, ...], restriction: Restriction) -> Iterator[Candidate]:
        """Offered ops with their impls spelled, each with the reason why it has no impl or no place here.

        Strategies without a place come last: what they offer too is refused, if at all, for a reason of the op's own.
        """
        lacks = {s.name: s.needs(self.setup.parallelism) if self.setup.parallelism.tp > 1 else None for s in chosen}
        for strategy in sorted(chosen, key=lambda s: lacks[s.name] is not None):
            key = (boundary, strategy.name, restriction.of_impls)
            if key not in self._known:
                self._known[key] = tuple(self._offered(boundary, strategy, lacks[strategy.name], restriction.of_impls))
            yield from self._known[key]

    def by_impls(self, boundary: str, op: Op) -> Iterator[Op]:
        """An op in any format by the impls that may perform it here, spelled as the search would; offered or not."""
        alike = (s for s in strategies().values() if any(o.op.name == op.name for o in s.offers.get(boundary, ())))
        for strategy in alike:
            found = self._with_impls(boundary, Offer(op), strategy, ANY)
            yield from (spelled for spelled, lacks in found if lacks is None)

    def _offered(
        self, boundary: str, strategy: Strategy, needs: str | None, restriction: Restriction
    ) -> Iterator[Candidate]:
        for offer in strategy.offers.get(boundary, ()):
            if not offer.op.kind.is_collective:
                yield offer.op, None
            elif needs is not None:
                yield offer.op, needs
            else:
                yield from self._with_impls(boundary, offer, strategy, restriction)

    def _with_impls(
        self, boundary: str, offer: Offer, strategy: Strategy, restriction: Restriction
    ) -> Iterator[Candidate]:
        executor, hardware = self.setup.executor, self.setup.hardware
        capability = executor.ops.get(offer.op.name)
        bare = Op(offer.op.name) if offer.op.wire_name is not None else offer.op  # one line for all formats
        if capability is None:
            yield bare, executor.can.cannot_run(offer.op.name)
            return
        here = [each for each in capability.impls if executor.can.runs_beside(each, hardware.backend)]
        if here and all(executor.impls[each].lacks_format(offer.op) for each in here):
            if self._is_listed_in_vain(offer.op):
                why = f"no impl of executor {executor.name} sends it on {hardware.name}"
                yield Op(offer.op.name, wire_name=offer.op.wire_name), why
            return  # a format that nobody sends on this machine is no option of it, unless somebody listed it
        usable = 0
        for name in here:
            impl = executor.impls[name]
            if (impl.strategies is not None and strategy.name not in impl.strategies) or impl.lacks_format(offer.op):
                continue
            if offer.peer_to_peer and impl.kind == "library":
                continue
            # What a user of our executors runs without commplan is the library; of a server, its own kernels too.
            if not restriction.own_kernels and (impl.is_own or impl.is_composed or (impl.provider and self._no_server)):
                continue
            usable += 1
            if self._is_outdone(boundary, offer.op, name, restriction) or needless(name, self.setup) is not None:
                continue
            spelled = None if name == hardware.backend else name
            lacks = self._lacks(name, impl, restriction)
            for op in self._spelled(offer.op, name, impl, restriction):
                yield replace(op, impl=spelled), lacks
        if usable == 0:
            kind = "fused peer-to-peer " if offer.peer_to_peer else ""
            yield bare, f"executor {executor.name} has no {kind}impl of {offer.op.name} for {hardware.name}"

    def _is_listed_in_vain(self, op: Op) -> bool:
        """True for a format that the deployment lists, and that no impl sends here by whatever columns of a scale."""
        return op.wire_name in self.setup.deployment.numerics.wire_formats and op.wire_name not in self._sent

    @cached_property
    def _sent(self) -> frozenset[str]:
        executor, backend = self.setup.executor, self.setup.hardware.backend
        return frozenset(
            wire.name
            for op, wire in offered_sums()
            if op.name in executor.ops
            for name in executor.ops[op.name].impls
            if executor.can.runs_beside(name, backend) and not executor.impls[name].lacks_format(op)
        )

    def _spelled(self, op: Op, name: str, impl: Impl, restriction: Restriction) -> Iterator[Op]:
        """An op as an impl may be told it: whole messages by their algorithm and in pieces, others as measured."""
        if impl.is_composed:
            accepted = impl.algorithms or op.kind.composed_algorithms
            for algorithm in (a for a in op.kind.composed_algorithms if a in accepted and op.algorithm in (a, None)):
                by = replace(op, algorithm=algorithm)
                yield from (replace(by, pieces=number) for number in (None, *self._pieces(by, impl)))
            return
        yield op
        yield from (replace(op, algorithm=a) for a in self._told(op, name, impl, restriction))

    def _told(self, op: Op, name: str, impl: Impl, restriction: Restriction) -> tuple[str, ...]:
        """The algorithms that a kernel of commplan's own may be told here: those it was measured by."""
        if op.algorithm is not None or not impl.is_own:
            return ()
        known = self.costs.collectives.has_algorithm
        return tuple(a for a in op.kind.own_algorithms if restriction.unmeasured or known(op.kind.table, name, a))

    def _is_outdone(self, boundary: str, op: Op, name: str, restriction: Restriction) -> bool:
        """True where a composed impl without the norm stands, or is refused, beside the one that does it on its way
        through memory."""
        setup, impls = self.setup, self.setup.executor.impls
        if not impls[name].is_composed or impls[name].fuses_norm or restriction.unmeasured:
            return False
        if boundary not in RESIDUAL_OUT or setup.model.residual_streams > 1 or setup.parallelism.pp > 1:
            return False
        if self._is_named:
            return False
        carrier = impls[name].carrier
        with_norm = [n for n, i in impls.items() if i.is_composed and i.fuses_norm and i.carrier == carrier]
        refused = self._is_refused(boundary, op, name)
        return refused or not all(self._is_refused(boundary, op, other) for other in with_norm)

    def _is_refused(self, boundary: str, op: Op, impl: str) -> bool:
        can, p, architecture = self.setup.executor.can, self.setup.parallelism, self.setup.model.architecture
        by = replace(op, impl=impl)
        return can.refusal(boundary, by, self.mode, "dense", p, architecture=architecture) is not None

    @cached_property
    def _is_named(self) -> bool:
        """True where a rule of the deployment names a composed impl: what is meant then is for the rules to say."""
        impls, numerics = self.setup.executor.impls, self.setup.deployment.numerics
        rules = (*numerics.pin, *numerics.forbid)
        return any(rule.impl in impls and impls[rule.impl].is_composed for rule in rules)

    def _pieces(self, op: Op, impl: Impl) -> tuple[int, ...]:
        """Into how many pieces an impl may cut the rows: where its kernels and the library run side by side, on GPUs.
        Where the residual is gathered the wire is so much dearer that it is not asked, and under attention DP there are
        so many ways already that a search over all of them takes long. Beside kernels of ours that write to their peers
        a composed sum is a last resort, in one piece unless it was measured in more."""
        if not impl.is_composed or op.way.in_one_launch:
            return ()
        if op.residual is not None or self.setup.parallelism.attn_dp > 1:
            return ()
        if self._writes_to_peers and not self._composed_is_measured and not impl.is_through_host:
            return ()
        return PIECES if BACKENDS[self.setup.hardware.backend].device_type == "cuda" else ()

    @cached_property
    def _writes_to_peers(self) -> bool:
        link, impls = self.setup.hardware.links.intra_node, self.setup.executor.impls.values()
        return link.has_peer_access and any(i.is_own and link.topology in (i.topologies or ()) for i in impls)

    @cached_property
    def _composed_is_measured(self) -> bool:
        measured, impls = self.costs.collectives.is_measured, self.setup.executor.impls.items()
        return any(impl.is_composed and not impl.is_through_host and measured(name) for name, impl in impls)

    @property
    def _no_server(self) -> bool:
        return self.setup.executor.versions is None

    def _lacks(self, name: str, impl: Impl, restriction: Restriction) -> str | None:
        """Why an impl is not used here: the ranks span more, or are joined otherwise, than it can do; None if it is."""
        hardware, tp, links = self.setup.hardware, self.setup.parallelism.tp, impl.topologies
        link, measured = hardware.links.intra_node, self.costs.collectives.is_measured(name)
        if impl.stock_only is not None and not restriction.stock:
            return f"executor {self.setup.executor.name}: {impl.stock_only}"
        # Where groups of attention DP are smaller `check_impl` looks at them.
        if impl.is_through_host and hardware.devices_per_node < tp and self.setup.parallelism.attn_dp == 1:
            return f"{name} reaches the devices of one node, and the {tp} ranks span several"
        if impl.needs_table and not measured and not restriction.unmeasured:
            return f"{name} has no formula, and {hardware.name} no table of it: run commplan calibrate"
        # Our own kernels may serve a group inside a node, where tp spans several: `check_impl` looks at the group.
        if hardware.devices_per_node < tp and not impl.is_own and (impl.kind == "peer_to_peer" or links is not None):
            return f"{name} reaches the devices of one node, and the {tp} ranks span several"
        # A server's rule is what the server does; elsewhere a table of this machine knows better.
        wanted = links is not None and (tp > 2 or impl.only_topologies)
        if wanted and links and link.topology not in links and not (measured and self._no_server):
            what = "ranks" if impl.only_topologies else "more than two ranks"
            return f"{name} joins {what} over {' or '.join(links)} links, not over {link.topology}"
        if impl.peer_access and not link.has_peer_access and not measured:
            lacks = f"links.intra_node.peer_access of {hardware.name} does not say that devices can"
            return f"{name} reads its peers' memory, and {lacks}"
        if impl.multicast and not link.multicast:
            return f"{name} needs a switch that adds, and links.intra_node.multicast of {hardware.name} does not say so"
        return None

    def is_offered(self, op: Op, terms: tuple[Term, ...], restriction: Restriction) -> bool:
        """False for an op whose impl is used only where it was measured, and this op over this group was not; or that
        was measured, but otherwise."""
        if op.impl is None or restriction.unmeasured:
            return True
        return not self.costs.lacks_table(terms) and self.costs.is_among_measured(terms)

    def _cannot_push(self, boundary: str) -> str | None:
        """Why rows cannot be pushed behind the GEMM that makes them here, as tables of it have it, or None."""
        model, p, dtypes = self.setup.model, self.setup.parallelism, self.setup.deployment.dtypes
        if dtypes.weights != dtypes.activations:
            return (
                f"rows are pushed as a GEMM in {dtypes.activations} makes them, and dtypes.weights is {dtypes.weights}"
            )
        heads = model.num_attention_heads // p.attn_tp
        inner = heads * model.value_head_dim if boundary == "attn_out" else (model.intermediate_size or 0) // p.tp
        if inner < PUSHED_INNER:
            least = f"one of {PUSHED_INNER} inner columns or more"
            return f"rows are pushed while a GEMM makes them, which hides so much in {least}; this one has {inner}"
        return None

    def check_impl(self, boundary: str, op: Op, group: GroupName, shape: LayerShape) -> None:
        """Raise IllegalOpError where the impl of an op cannot perform it over this group."""
        setup = self.setup
        dtype, size = setup.deployment.dtypes.activations, setup.parallelism.group_size(group)
        width = setup.model.latent_width if op.kind.latent else setup.model.hidden_size
        why = setup.executor.can.impl_refusal(boundary, op, setup.hardware.backend, dtype, size, width, shape)
        if why is None and op.is_pushed:
            why = self._cannot_push(boundary)
        if why is None and op.wire is not None and op.wire.needs_fp8 and setup.hardware.compute.fp8_tflops is None:
            why = f"travels in {op.wire.words}, and compute.fp8_tflops of {setup.hardware.name} says of none"
        if why is None and op.impl is not None and (op.impl in ONE_LAUNCH or self._is_through_host(op.impl)):
            nodes = self.costs.collectives.num_nodes(group)
            why = f"{op.impl} reaches the devices of one node, and this group spans {nodes}" if nodes > 1 else None
        if why is not None:
            raise IllegalOpError(why)

    def _is_through_host(self, impl: str) -> bool:
        known = self.setup.executor.impls.get(impl)
        return known is not None and known.is_through_host


def needless(impl: str, setup: Setup) -> str | None:
    """Why an impl is no option on a machine, and is not spoken of there; None where it is one. Nothing goes through the
    host where devices reach each other, unless a rule of the deployment asks for it."""
    hardware, pins = setup.hardware, setup.deployment.numerics.pin
    if not setup.executor.impls[impl].is_through_host or any(rule.impl == impl for rule in pins):
        return None
    if not hardware.links.intra_node.has_peer_access:
        return None
    direct = f"devices of {hardware.name} reach each other's memory"
    return f"{impl} goes through the host's memory, and {direct}; a rule of numerics.pin may ask for it"


def wire_refusal(op: Op, setup: Setup) -> str | None:
    """Why the deployment does not let a sum travel in the format of an op, or by its impl, or None."""
    numerics, wire = setup.deployment.numerics, op.wire
    if wire is not None and wire.name not in numerics.wire_formats:
        listed = ", ".join(numerics.wire_formats) or "none"
        return f"travels in {wire.words}, and numerics.wire_formats lists {listed}: {wire.name} is not among them"
    if numerics.perplexity_budget is not None and wire is not None and _is_unmeasured(op, setup):
        group = "a scale for each row" if op.scale_group in (None, "token") else f"groups of {op.scale_group}"
        return f"{numerics.sensitivity} has no effect on the loss of {wire.name}, {group}, {op.algorithm}"
    differ = setup.executor.impls[op.impl].ranks_differ if op.impl is not None else None
    if differ is not None and not numerics.ranks_may_differ:
        return f"{differ}, and numerics.ranks_may_differ is false"
    return None


def _is_unmeasured(op: Op, setup: Setup) -> bool:
    return setup.sensitivity is not None and setup.sensitivity.effects_of(op) is None


def has_own_kernels(setup: Setup) -> bool:
    """True where kernels of commplan's own may perform plain ops on this machine: its devices reach each other, or did,
    or rows were measured through the host."""
    hardware, executor = setup.hardware, setup.executor
    here = {n: i for n, i in executor.impls.items() if executor.can.runs_beside(n, hardware.backend)}
    if hardware.links.intra_node.has_peer_access and setup.parallelism.tp <= hardware.devices_per_node:
        return any(impl.is_own for impl in here.values())
    own = {name for name, impl in here.items() if impl.is_own or impl.is_through_host}
    return any(table.impl in own for use in setup.calibrations for table in use.calibration.tables)
