"""From what the search chose to a strategy file."""

from __future__ import annotations

from ..cost.estimate import weakest
from ..cost.terms import COMMUNICATION
from ..descriptions.setup import Setup
from ..search.graph import Edge, Plan
from ..search.planning import ModePlanner
from ..search.ranges import PlannedRange
from ..search.stock import StockPlanner
from ..strategy.file.document import (
    DeploymentStamp,
    HardwareStamp,
    LayerOps,
    ModelStamp,
    Predicted,
    RangePlan,
    StrategyFile,
)
from ..strategy.file.writing import with_producer
from ..strategy.words import Provenance

Chosen = dict[str, tuple[ModePlanner, list[PlannedRange], StockPlanner]]
"""What the search chose, by mode, with those that can say more of it: the planner, and the stock server's."""


def plan_setup(setup: Setup, found: Chosen | None = None) -> StrategyFile:
    """The cheapest legal strategy file of a setup; raises NoLegalPlanError where there is none. Fills `found`."""
    modes = {}
    for mode in setup.deployment.modes:
        planner = ModePlanner(setup, mode)
        ranges = planner.ranges()
        stock = StockPlanner(planner)
        if found is not None:
            found[mode] = planner, ranges, stock
        modes[mode] = tuple(range_plan(planner, chosen, stock) for chosen in ranges)
    return with_stamps(setup, modes)


def with_stamps(setup: Setup, modes: dict[str, tuple[RangePlan, ...]]) -> StrategyFile:
    """A strategy file for the ranges of each mode, stamped with what it was made for."""
    model, deployment, marks = setup.model, setup.deployment, setup.fingerprints
    moe = frozenset(i for i in range(model.num_hidden_layers) if model.mlp_kind(i) == "moe")
    return StrategyFile(
        model=ModelStamp(
            name=model.name,
            role=deployment.model_role,
            architecture=model.architecture,
            num_hidden_layers=model.num_hidden_layers,
            hidden_size=model.hidden_size,
            latent_width=model.latent_width,
            moe_layers=moe,
            fingerprint=marks["model"],
            residual_streams=model.residual_streams,
        ),
        hardware=HardwareStamp(setup.hardware.name, setup.hardware.backend, marks["hardware"]),
        deployment=DeploymentStamp(deployment.name, deployment.dtypes.activations, marks["deployment"]),
        executor=setup.executor.name,
        parallelism=setup.parallelism,
        numerics=deployment.numerics.loosest,
        modes=modes,
        overrides=setup.overrides,
    )


def range_plan(planner: ModePlanner, chosen: PlannedRange, stock: StockPlanner | None = None) -> RangePlan:
    """A planned range as a strategy file holds it, with what was expected at its last token count."""
    plan, tokens = chosen.plan, chosen.last
    uniforms = [u for u in planner.uniforms(tokens) if u.step_us is not None]
    best = min(uniforms, key=lambda u: (u.step_us, u.strategy), default=None)
    stock = stock or StockPlanner(planner)
    prices = stock.prices(tokens, plan)
    flag = prices.best_flag
    predicted = Predicted(
        tokens=tokens,
        step_us=planner.step_us(plan, tokens),
        all_reduce_us=planner.step_us(planner.plain(tokens), tokens),
        best_uniform=None if best is None or best.step_us is None else (best.strategy, best.step_us),
        worst_loss=chosen.worst_loss,
        source=collective_provenance(planner, plan, tokens),
        stock_us=prices.stock.step_us,
        stock_source=collective_provenance(stock.server, prices.stock.plan, tokens),
        best_stock_flag=None if flag is None else (flag.name, flag.step_us),
        library_us=prices.library.step_us,
        faster_rivals=stock.faster_rivals(plan, chosen.first, tokens),
        host_wait_us=planner.host_wait_us(plan, tokens),
        perplexity_rise=planner.perplexity_rise(plan),
        perplexity_budget=planner.setup.deployment.numerics.perplexity_budget,
    )
    layers = tuple(_layer_ops(index, edges) for index, edges in enumerate(plan.layers))
    return RangePlan(chosen.first, tokens, plan.embed_out.op, layers, plan.head_in.op, predicted)


def _layer_ops(layer: int, edges: tuple[Edge, ...]) -> LayerOps:
    attn_in, attn_out, mlp_in, mlp_out = (edge.op for edge in edges)
    return LayerOps(with_producer(layer, attn_in), attn_out, mlp_in, mlp_out)


def collective_provenance(planner: ModePlanner, plan: Plan, tokens: int) -> Provenance:
    """The weakest provenance among the collectives of a plan: what its communication time rests on."""
    found = set()
    for edge, _ in plan.counted:
        for term in edge.terms:
            if isinstance(term.work, COMMUNICATION):
                estimate = planner.costs.estimate(term, tokens)
                if estimate.wire_bytes:
                    found.add(estimate.provenance)
    return weakest(found)
