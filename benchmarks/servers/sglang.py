"""What does a plan gain in a real SGLang server? Two GPUs, against the server by its own defaults.

    python benchmarks/servers/sglang.py --rows rows.jsonl                     # again, until it says that all is there
    python benchmarks/servers/sglang.py --rows rows.jsonl --layers 8 --beside 4 --configurations unmodified,reordered
    python benchmarks/servers/sglang.py --rows rows.jsonl --show --markdown   # the tables alone

SGLang 0.5.23 and commplan are those of this Python (site/ carries them to a machine without a package index). Servers
of a group stand side by side on the same GPUs, each a configuration (configurations.py), and are asked in turn: time to
first token of one prompt, and the step of a decode. The first of a group is the unmodified server; the others are
compared with the one that stood beside them. Plans are made by commplan of a shipped deployment, with the model's shape
(shapes.py), and every server is started with what `commplan launch` computes.

Rows go into a file as they are measured, so that runs of some minutes add up. A server that fails is left out, and the
end of its log is printed.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configurations import (
    CONFIGURATIONS,
    SLOW_LINKS,
    UNMODIFIED,
    command_of,
    decode_sizes,
    make_plan,
    overrides,
    prefill_sizes,
)
from kept import Kept, Key, Setting, Writer
from measuring import PROMPT, Turns, decode, ttft
from profiling import NEW_TOKENS, profile
from running import LEAST_S, Server, environment, free_port, wait_for_all
from shapes import SHAPES, write_model
from tables import tables
from telling import arguments_of, card, clocks, counted, says

TOKENS, BATCHES = (16, 64, 256, 512, 1024, 2048, 4096, 8192, 16384), (1, 16, 64)
# Equal on all sides, besides what `commplan launch` computes: made-up weights, no tokenizer, no cache of prefixes, the
# attention, sampling and expert kernels that need no package of their own.
GPU_ARGUMENTS = (
    "--load-format dummy --skip-tokenizer-init --attention-backend triton --sampling-backend pytorch "
    "--moe-runner-backend triton --grammar-backend none --disable-radix-cache --context-length 20480 "
    "--max-prefill-tokens 16384 --max-total-tokens 24000 --mem-fraction-static 0.85"
)
FUSION_IS_ON = "FlashInfer AllReduce Fusion enabled"
"""What SGLang logs when its own fused all-reduce and norm has been set up."""
HEAD = "<!-- By: python benchmarks/servers/sglang.py --rows {} --show --markdown -->\n\n# Plans in an SGLang server\n\n"


class Bench:
    """One call: the plans, the groups, and what is written."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.until = options, time.monotonic() + 60 * options.minutes
        self.model = options.model or write_model(options.shape, options.layers, options.out / "models")
        self.config = _config(self.model)
        self.files = dict(self._plans())
        self.reference = next(iter(self.files.values()))[1]
        names = [name for name in options.configurations if name in self.files or CONFIGURATIONS[name].plan is None]
        self.groups = list(_groups(names, options.beside))
        self.keys = [Key("ttft", n) for n in options.tokens] + [Key("decode", n) for n in options.batches]
        self.shared: dict[str, Any] = {
            "card": card(),
            "shape": self.model.name.rpartition("-")[0] if options.model is None else self.model.name,
            "layers": self.config["num_hidden_layers"],
            "links": SLOW_LINKS.what if options.slow_links else "as they are",
        }

    def _plans(self) -> Iterator[tuple[str, tuple[Path, Any]]]:
        from commplan.planner.strategy.errors import CommplanError
        from commplan.runtime.servers.sglang.server_fit import load_runnable

        own = SHAPES[self.options.shape].overrides if self.options.model is None else {}
        deployment = self.options.deployment or SHAPES[self.options.shape].deployment
        planned = [name for name in self.options.configurations if CONFIGURATIONS[name].plan is not None]
        for name in planned or ["reordered"]:
            path = dict(self.options.plan).get(name)
            sets = overrides(name, self.model, own, self.options.slow_links, self.options.set)
            try:
                made = self.options.out / "plans" / f"{self.model.name}-{name}.yaml"
                file = load_runnable(path) if path else make_plan(deployment, sets, made)
            except CommplanError as error:
                print(f"{name}: no plan: {error}", flush=True)
                continue
            yield name, ((path or made).absolute(), file)

    def missing(self) -> list[tuple[int, list[str], list[Key]]]:
        """Start, group, and what has not been measured of it; what was tried least comes first."""
        kept = Kept.read(self.options.rows).of(Setting(**self.shared))
        found = []
        for start in range(1, self.options.starts + 1):
            for group in self.groups:
                name = "+".join(group)
                keys = [key for key in self.keys if not kept.has(start, name, key)]
                if keys:
                    found.append((kept.tries(start, name), start, group, keys))
        return [(start, group, keys) for _, start, group, keys in sorted(found, key=lambda one: one[:2])]

    def run(self) -> None:
        """As many groups as the time allows."""
        for start, group, keys in self.missing():
            if time.monotonic() > self.until - LEAST_S:
                break
            run = f"{time.strftime('%d %b %H:%M:%S')} {uuid.uuid4().hex[:6]}"
            write = Writer(self.options.rows, **self.shared, start=start, group="+".join(group), run=run)
            print(f"-- start {start}: {' | '.join(group)}; {self.until - time.monotonic():.0f} s left", flush=True)
            self._run_group(group, keys, write)

    def _run_group(self, group: list[str], keys: list[Key], write: Writer) -> None:
        servers: list[Server] = []
        up: list[Server] = []
        try:
            taken: set[int] = set()
            servers += [self._start(name, free_port(taken)) for name in group]
            up = wait_for_all(servers, min(self.options.wait, self.until - time.monotonic()))
            for server in servers:
                self._tell(server, server in up, write)
            turns = Turns(up, self.options.repetitions, self.config["vocab_size"], self.until)
            for key in keys:
                if turns.is_over():
                    break
                _measure(turns, key, self.options.new_tokens, write)
            print(clocks(), flush=True)
            self._profile(turns, write)
            for server in turns.servers:
                write(what="fusion", configuration=server.name, on=server.has_logged(FUSION_IS_ON))
                _counters(server, write)
        finally:
            for server in servers:
                server.end()

    def _profile(self, turns: Turns, write: Writer) -> None:
        wanted = [Key("ttft", n) for n in self.options.profile_tokens]
        for key in wanted + [Key("decode", n) for n in self.options.profile_batches]:
            for server in list(turns.servers):
                if turns.is_over():
                    return
                prompts = turns.prompts(1, key.size, 0) if key.kind == "ttft" else turns.prompts(key.size, PROMPT, 0)
                new, folder = (1 if key.kind == "ttft" else NEW_TOKENS), self.options.out.absolute() / "traces"
                try:
                    told = profile(server, prompts, new, folder / server.name, 60)
                except (OSError, ValueError) as error:
                    print(f"{server.name}: no profile: {error!r}"[:300], flush=True)
                    continue
                write(what="profile", configuration=server.name, kind=key.kind, size=key.size, **told)

    def _start(self, name: str, port: int) -> Server:
        configuration = CONFIGURATIONS[name]
        path, file = self.files.get(name, (None, None))
        files = [file for _, file in self.files.values()]
        common = shlex.split(self.options.server_arguments)
        if self.options.server_arguments == GPU_ARGUMENTS:
            common += ["--cuda-graph-bs-decode", *map(str, decode_sizes(self.options.batches, files))]
            common += ["--cuda-graph-bs-prefill", *map(str, prefill_sizes(self.options.tokens, files))]
        slow = SLOW_LINKS if self.options.slow_links else None
        common += slow.arguments if slow else ()
        command = command_of(name, str(self.model.absolute()), file, self.reference, common)
        more = {**configuration.environment, **(slow.environment if slow else {})}
        log = (self.options.out / "logs" / f"{port}-{name}.log").absolute()
        return Server(name, command, environment(path, configuration.hook, more), port, log)

    def _tell(self, server: Server, up: bool, write: Writer) -> None:
        from commplan.planner.strategy.file import plan_hash

        _, file = self.files.get(server.name, (None, None))
        plan = plan_hash(file) if file is not None else None
        told = says(server) if up else {}
        row = {"configuration": server.name, "up": up, "seconds": round(server.up_after_s, 1), "plan": plan}
        write(what="server", **row, says=told, arguments=arguments_of(server.command))
        print(f"{server.name}: {shlex.join(server.command)}", flush=True)
        if not up:
            code = server.process.poll()
            state = "is not up" if code is None else f"ended with {code}"
            print(f"{server.name}: {state}\n-- {server.log.name}\n{server.tail(60)}", flush=True)


def _measure(turns: Turns, key: Key, new_tokens: int, write: Writer) -> None:
    began = time.monotonic()
    rows = ttft(turns, key.size) if key.kind == "ttft" else decode(turns, key.size, new_tokens)
    said = []
    for row in rows:
        write(**row)
        said.append(f"{row['configuration']} {sorted(row['ms'])[len(row['ms']) // 2]:.2f} (least {min(row['ms']):.2f})")
    where = f"{key.size} tokens" if key.kind == "ttft" else f"decode of {key.size}"
    print(f"{where}: {', '.join(said) or 'not measured'}; {time.monotonic() - began:.0f} s", flush=True)


def _counters(server: Server, write: Writer) -> None:
    """Under a plan: are the executed ops forwards x plan?"""
    from commplan.planner.strategy.errors import CommplanError

    if CONFIGURATIONS[server.name].plan is None:
        return
    try:
        found, forwards = counted(server)
    except CommplanError as error:
        print(f"{server.name}: {error}", flush=True)
        return
    write(what="counters", configuration=server.name, differences=found, forwards=forwards)
    print(f"{server.name}: counters {'exact' if not found else 'differ: ' + '; '.join(found[:4])}", flush=True)


def _config(model: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((model / "config.json").read_text())
    return found


def _groups(names: list[str], beside: int) -> Iterator[list[str]]:
    """Groups of at most `beside` servers, each with the unmodified one first if it is among them."""
    first = [UNMODIFIED] if UNMODIFIED in names and beside > 1 else []
    others = [name for name in names if name not in first]
    size = beside - len(first)
    yield from ([*first, *others[i : i + size]] for i in range(0, max(len(others), 1), size))


def main() -> None:
    options = _parser().parse_args()
    if not options.show:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        bench = Bench(options)
        bench.run()
    print(HEAD.format(options.rows.name) if options.markdown else "", end="")
    print(tables(Kept.read(options.rows), options.markdown))
    if not options.show:
        left = [
            f"start {start} of {' | '.join(group)}: {len(keys)} of {len(bench.keys)}"
            for start, group, keys in bench.missing()
        ]
        print("\nall is there" if not left else "\nnot yet there, so call again: " + "; ".join(left))


def _parser() -> argparse.ArgumentParser:
    def numbers(text: str) -> list[int]:
        return [int(word) for word in text.split(",") if word]

    def names(text: str) -> list[str]:
        for name in text.split(","):
            if name not in CONFIGURATIONS:
                raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(CONFIGURATIONS)}")
        return text.split(",")

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--rows", type=Path, default=Path("servers.jsonl"), help="where rows are kept")
    add("--out", type=Path, default=Path("build/servers"), help="where models, plans and logs are written")
    add("--shape", choices=SHAPES, default="qwen3-32b")
    add("--layers", type=int, help="of fewer layers than the model has")
    add("--model", type=Path, help="a checkpoint's folder instead of a shape; needs --deployment")
    add("--deployment", help="that plans are made of, instead of the shape's")
    add("--configurations", type=names, default=list(CONFIGURATIONS), help=f"of {','.join(CONFIGURATIONS)}")
    add("--beside", type=int, default=3, help="how many servers stand side by side; all weights must fit")
    add("--tokens", type=numbers, default=list(TOKENS), help="of prompts")
    add("--batches", type=numbers, default=list(BATCHES), help="requests of a decode")
    add("--repetitions", type=int, default=7)
    add("--new-tokens", type=int, default=129, help="of each request of a decode")
    add("--starts", type=int, default=3, help="how often each group is started")
    add("--minutes", type=float, default=9.0, help="stop after this time; call again for the rest")
    add("--wait", type=float, default=300.0, help="seconds until servers must be up")
    add("--slow-links", action="store_true", help=f"{SLOW_LINKS.what} and no kernel that reads a peer's memory")
    add("--set", action="append", default=[], metavar="FIELD=VALUE", help="as `commplan plan` takes it, for all plans")
    add("--plan", type=_named, action="append", default=[], metavar="NAME=FILE", help="a strategy file that is there")
    add("--server-arguments", default=GPU_ARGUMENTS, help="of all servers, instead of those for GPUs")
    add("--profile-tokens", type=numbers, default=[], help="of prompts whose kernels are listed, after all is measured")
    add("--profile-batches", type=numbers, default=[], help="of decodes, the same")
    add("--show", action="store_true", help="print the tables, and measure nothing")
    add("--markdown", action="store_true", help="tables in Markdown")
    return parser


def _named(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    if name not in CONFIGURATIONS or not path:
        raise argparse.ArgumentTypeError(f"NAME=FILE is expected, with a name of {', '.join(CONFIGURATIONS)}")
    return name, Path(path)


if __name__ == "__main__":
    main()
