"""Does a server under a plan say what the unmodified one says? Tokens and logprobs of seeded random checkpoints.

    python benchmarks/servers/proof.py --rows proof.jsonl                     # again, until it says that all is there
    python benchmarks/servers/proof.py --rows proof.jsonl --families qwen3 --show --markdown

Servers of a checkpoint stand side by side: the unmodified one, and one under each plan. Plans of exact sums over two
ranks (the server's own kernels, commplan's plain sum) must give every logprob bit by bit; those with the norm inside,
or quantised, must stay within the bound that `commplan check` sets for their class, and nine tenths of a prefill's
logprobs within a tighter one. Where tokens are routed to experts, a few may be beyond: `control.py` shows why. Prompts
go one at a time, so that batches are the same everywhere. Counters must be forwards x plan.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import answers
from answers import BOUNDS, PROMPTS, answer_of, compared
from checkpoints import FAMILIES, ROUTED, write_checkpoint
from configurations import CONFIGURATIONS, UNMODIFIED, command_of, make_plan, overrides
from kept import Kept, Writer
from running import LEAST_S, Server, environment, free_port, wait_for_all
from shapes import SHAPES
from tables import table
from telling import card, counted

from commplan.runtime.servers.sglang.command import added_flags, server_command

ARGUMENTS = (
    "--skip-tokenizer-init --attention-backend triton --sampling-backend pytorch --moe-runner-backend triton "
    "--grammar-backend none --disable-radix-cache --context-length 4096 --max-total-tokens 8192 "
    "--mem-fraction-static 0.85 --cuda-graph-bs-decode 1 2 4"
)
SHAPE_OF = {"qwen3": "qwen3-32b", "qwen3_moe": "qwen3-235b", "deepseek_v3": "deepseek-v3"}
GRAPHS = {"graphs": (), "eager": ("--disable-cuda-graph",)}
HEAD = """<!-- By: python benchmarks/servers/proof.py --rows {} --show --markdown -->

# What servers under a plan say, beside the unmodified one

"""


class Plan(NamedTuple):
    """What a plan is pinned to at both sums of a layer, and the bound that it has to keep.

    `of`: the configuration whose rules hold besides. `algorithm`: of every sum with the norm inside; the planner has no
    rule for it. `families`: those that can have it, where not all can. `environment`: of the server.
    """

    what: str
    bound: str
    pins: tuple[dict[str, Any], ...] = ()
    of: str = "reordered"
    algorithm: str | None = None
    families: tuple[str, ...] = tuple(FAMILIES)
    environment: Mapping[str, str] = MappingProxyType({})


def _everywhere(op: str, impl: str) -> tuple[dict[str, Any], ...]:
    return tuple({"op": op, "impl": impl, "boundary": at} for at in ("attn_out", "mlp_out"))


_INT8, _SUM, _NORM = "int8_all_reduce", "commplan_triton", "commplan_triton_norm"
_SHARDS = {"op": "reduce_scatter", "impl": _NORM, "modes": ["prefill"]}
_LATE = {"op": "latent_all_gather", "impl": _SUM, "modes": ["prefill"], "boundary": "attn_in", "layers": "1-3"}
PLANS = {
    "server_kernels": Plan("all_reduce by the server's own kernels", "bitwise", of="server_kernels"),
    "own_sum": Plan("all_reduce by commplan's kernel", "bitwise", _everywhere("all_reduce", _SUM)),
    "own_norm": Plan("the same with the norm inside", "reordered", _everywhere("all_reduce", _NORM)),
    **{
        f"int8_{name}": Plan(
            f"INT8 {name} with the norm inside", "quantized", _everywhere(_INT8, _NORM), "quantised", name
        )
        for name in ("gather", "two_shot")
    },
    "pushed": Plan(
        "rows pushed while they are made",
        "reordered",
        _everywhere("all_reduce", _NORM),
        algorithm="pushed",
        families=("qwen3",),  # every layer is dense
    ),
    "shards": Plan(
        "prefills of rows in shards: reduce-scatter, norm on the shard, gather",
        "reordered",
        ({**_SHARDS, "boundary": "attn_out"}, {**_SHARDS, "boundary": "mlp_out", "layers": "0-2"}),
    ),
    "late_gather": Plan(
        "prefills of rows in shards up to the latents", "reordered", (_LATE,), families=("deepseek_v3",)
    ),
    "reading_ahead": Plan(
        "all_reduce with the norm inside, asking for the next weights",
        "reordered",
        _everywhere("all_reduce", _NORM),
        environment=CONFIGURATIONS["reading_ahead"].environment,
    ),
}


class Proof:
    """One call: checkpoints, plans, and what is written."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.until = options, time.monotonic() + 60 * options.minutes
        self.card = card()

    def missing(self) -> Iterator[tuple[str, str, list[str]]]:
        """Family, graphs, and the plans that have no answers yet."""
        rows = [row for row in Kept.read(self.options.rows).rows if row["card"] == self.card]
        for family in self.options.families:
            for graphs in self.options.graphs:
                had = {
                    row["plan"]
                    for row in rows
                    if (row["family"], row["graphs"], row["what"]) == (family, graphs, "done")
                }
                left = [name for name in self.options.plans if name not in had and family in PLANS[name].families]
                if left:
                    yield family, graphs, left

    def run(self) -> None:
        """As many groups as the time allows."""
        for family, graphs, names in list(self.missing()):
            if time.monotonic() > self.until - LEAST_S:
                break
            model = self.options.out / "checkpoints" / family
            if not (model / "config.json").exists():
                write_checkpoint(family, model, self.options.dtype)
            write = Writer(self.options.rows, card=self.card, family=family, graphs=graphs)
            print(f"-- {family}, {graphs}: {', '.join(names)}", flush=True)
            self._run_group(model.absolute(), graphs, self._plans(family, model, names), write)

    def _plans(self, family: str, model: Path, names: list[str]) -> dict[str, tuple[Path, Any]]:
        from commplan.planner.strategy.errors import CommplanError

        found = {}
        shape = SHAPES[SHAPE_OF[family]]
        for name in names:
            plan, path = PLANS[name], self.options.out / "plans" / f"{family}-{name}.yaml"
            sets = overrides(plan.of, model, shape.overrides, False, [*_pinned(plan), *self.options.set])
            try:
                file = make_plan(self.options.deployment or shape.deployment, sets, path)
                found[name] = path.absolute(), with_algorithm(file, plan.algorithm, path)
            except CommplanError as error:
                print(f"{name}: no plan: {error}", flush=True)
        return found

    def _run_group(self, model: Path, graphs: str, plans: dict[str, tuple[Path, Any]], write: Writer) -> None:
        if not plans:
            return
        servers: list[Server] = []
        taken: set[int] = set()
        given = [*shlex.split(self.options.server_arguments), *GRAPHS[graphs]]
        commands = {UNMODIFIED: (None, like(next(iter(plans.values()))[1], str(model), given))}
        commands |= {name: (path, server_command(file, str(model), given)) for name, (path, file) in plans.items()}
        try:
            for name, (path, command) in commands.items():
                log = (self.options.out / "logs" / f"{model.name}-{graphs}-{name}.log").absolute()
                own = PLANS[name].environment if name in PLANS else {}
                servers.append(Server(name, command, environment(path, None, own), free_port(taken), log))
            up = wait_for_all(servers, min(self.options.wait, self.until - time.monotonic()))
            for server in servers:
                if server not in up:
                    print(f"{server.name}: is not up\n{shlex.join(server.command)}\n{server.tail(60)}", flush=True)
            if servers[0] in up:
                self._compare(up, write)
        finally:
            for server in servers:
                server.end()

    def _compare(self, servers: list[Server], write: Writer) -> None:
        from commplan.planner.strategy.errors import CommplanError

        wanted: list[dict[str, Any]] = []
        for server in servers:
            try:
                found = [answer_of(server, length) for length in PROMPTS]
                differences = counted(server)[0] if wanted else []
            except (OSError, ValueError, KeyError, CommplanError) as error:
                print(f"{server.name}: failed with {error!r}\n{server.tail()}", flush=True)
                if not wanted:
                    return
                continue
            if not wanted:  # the unmodified one comes first
                wanted = found
                continue
            for row in compared(wanted, found, BOUNDS[PLANS[server.name].bound]):
                write(what="logprobs", plan=server.name, **row)
                print(f"{server.name}: {row}", flush=True)
            write(what="done", plan=server.name, differences=differences)
            print(f"{server.name}: counters {'exact' if not differences else differences[0]}", flush=True)


def _pinned(plan: Plan) -> list[str]:
    from commplan.planner.strategy.yaml_file import flow_text

    return [f"numerics.pin={flow_text(list(plan.pins))}"] if plan.pins else []


def with_algorithm(file: Any, algorithm: str | None, path: Path) -> Any:
    """The plan with this algorithm at every sum that does the norm, written over its file."""
    from commplan.planner.strategy.file import save
    from commplan.runtime.servers.sglang.server_fit import load_runnable

    if algorithm is None:
        return file

    def of(op: Any) -> Any:
        return replace(op, algorithm=algorithm) if op.impl == _NORM else op

    def layer(ops: Any) -> Any:
        return replace(ops, attn_out=of(ops.attn_out), mlp_out=of(ops.mlp_out))

    modes = {
        mode: tuple(replace(plan, layers=tuple(layer(ops) for ops in plan.layers)) for plan in ranges)
        for mode, ranges in file.modes.items()
    }
    path.unlink()
    save(replace(file, modes=modes), path)
    return load_runnable(path)


def like(file: Any, model: str, given: Sequence[str]) -> list[str]:
    """The unmodified server with the graphs that a server under the plan has, so that its batches are padded alike, and
    without FlashInfer's fused sums, whose norm rounds otherwise."""
    added = [flag for flag in added_flags(file, given) if "cuda-graph" in flag.name or "fusion" in flag.name]
    return command_of(UNMODIFIED, model, None, file, [*given, *(w for f in added for w in (f.name, *f.values))])


def verdict(row: Mapping[str, Any]) -> str:
    """Is an error within the bound of its plan's class?"""
    return answers.verdict(row, BOUNDS[PLANS[row["plan"]].bound], row["family"] in ROUTED)


def shown(rows: list[dict[str, Any]], markdown: bool) -> str:
    """A table of the latest rows. Rows may be older than their counts: where no row has them, neither has the table."""
    exact = {(r["family"], r["graphs"], r["plan"]): not r["differences"] for r in rows if r["what"] == "done"}
    latest = {(r["family"], r["graphs"], r["plan"], r["kind"]): r for r in rows if r["what"] == "logprobs"}
    counts = ["nine tenths", "beyond"] if any("beyond" in row for row in latest.values()) else []
    head = [
        "family",
        "graphs",
        "plan",
        "",
        "texts alike",
        "logprobs",
        "largest error",
        "middle",
        *counts,
        "largest",
        "",
    ]
    lines = [[*head, "counters"]]
    for (family, graphs, plan, kind), row in latest.items():
        told = [row["same_texts"], str(row["compared"]), _error(row["error"]), _error(row["middle"])]
        if counts and "beyond" in row:
            told += [_error(row["nine_tenths"]), f"{row['beyond']} ({row['share']:.1%})" if row["beyond"] else "0"]
        elif counts:
            told += ["not counted"] * len(counts)
        counters = "exact" if exact.get((family, graphs, plan)) else "differ"
        lines.append([family, graphs, PLANS[plan].what, kind, *told, f"{row['largest']:.1f}", verdict(row), counters])
    cards = ", ".join(sorted({row["card"] for row in latest.values()}))
    return f"{cards}\n\n{table(lines, markdown)}" if len(lines) > 1 else ""


def _error(error: float) -> str:
    return f"{error:.2e}" if error else "0"


def _of(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Names with commas between them, each a known one."""

    def names(text: str) -> list[str]:
        for name in text.split(","):
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(known)}")
        return text.split(",")

    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--rows", type=Path, default=Path("proof.jsonl"), help="where rows are kept")
    add("--out", type=Path, default=Path("build/servers"), help="where checkpoints, plans and logs are written")
    for option, known in (("families", FAMILIES), ("plans", PLANS), ("graphs", GRAPHS)):
        add(f"--{option}", type=_of(known), default=list(known), help=f"of {','.join(known)}")
    add("--dtype", default="bfloat16", help="of the checkpoint")
    add("--deployment", help="that plans are made of, instead of the family's")
    add("--set", action="append", default=[], metavar="FIELD=VALUE", help="as `commplan plan` takes it, for all plans")
    add("--minutes", type=float, default=9.0, help="stop after this time; call again for the rest")
    add("--wait", type=float, default=300.0, help="seconds until servers must be up")
    add("--server-arguments", default=ARGUMENTS, help="of all servers, instead of those for GPUs")
    add("--show", action="store_true", help="print the table, and ask no server")
    add("--markdown", action="store_true", help="the table in Markdown")
    options = parser.parse_args()
    if not options.show:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        proof = Proof(options)
        proof.run()
        left = [f"{family}, {graphs}: {', '.join(names)}" for family, graphs, names in proof.missing()]
        print("all is there" if not left else "not yet there, so call again: " + "; ".join(left))
    said = shown(Kept.read(options.rows).rows, options.markdown)
    print(HEAD.format(options.rows.name) + said if options.markdown else said)


if __name__ == "__main__":
    main()
