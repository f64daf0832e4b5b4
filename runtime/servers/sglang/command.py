"""The command line of a server under a plan: what the plan needs, and nothing that the user has said already."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, entry_points, version
from typing import NamedTuple

from commplan.planner.strategy.file import StrategyFile
from commplan.planner.strategy.packages import CHECKOUT

from ...errors import RefusedError
from ..captured_sizes import Captures, sizes_for, with_ends
from .arguments import longest_chunk, most_requests
from .server_fit import check_version
from .words import DECODE_GRAPHS, MOST_LATENT, PREFILL_GRAPHS, PREFILL_STEPS, TESTED_VERSIONS, WITH_LATENTS

_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


class Flag(NamedTuple):
    """An argument that a plan needs, its values, and why."""

    name: str
    values: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        """As a person reads it."""
        return f"{' '.join((self.name, *self.values))}: {self.reason}"


def server_command(file: StrategyFile, model_path: str, extra: Sequence[str] = ()) -> list[str]:
    """`python -m sglang.launch_server` with what the plan needs, then `extra` as it is.

    -P keeps the current folder out of the import path: a checkout that stands there could hide the installed plugin.
    """
    model = Flag("--model-path", (model_path,), "")
    named = () if _is_given(model.name, extra) else (model.name, *model.values)
    added = [word for flag in added_flags(file, extra) for word in (flag.name, *flag.values)]
    return [sys.executable, "-P", "-m", "sglang.launch_server", *named, *added, *extra]


def added_flags(file: StrategyFile, extra: Sequence[str] = ()) -> list[Flag]:
    """What the plan needs, less what `extra` says already."""
    return [flag for flag in needed(file) if not _is_given(flag.name, extra)]


def _is_given(name: str, extra: Sequence[str]) -> bool:
    return any(argument.split("=")[0] == name for argument in extra)


def needed(file: StrategyFile) -> list[Flag]:
    """Flags without which the plan would be refused."""
    p = file.parallelism
    flags = [Flag("--tp-size", (str(p.tp),), f"the plan is for {p.tp} ranks")]
    if p.attn_dp > 1:
        flags.append(Flag("--attn-dp-size", (str(p.attn_dp),), "the plan is for so many DP groups of attention"))
    if p.ep > 1:
        flags.append(Flag("--ep-size", (str(p.ep),), "the plan is for experts divided so"))
    activations = file.deployment.activations
    flags.append(Flag("--dtype", (_DTYPES[activations],), f"messages are priced in {activations}"))
    if "prefill" in file.modes:
        most = longest_chunk(file)
        flags.append(Flag("--chunked-prefill-size", (str(most),), f"the plan's prefill ends at {most} tokens"))
    if "decode" in file.modes:
        most = most_requests(file)
        flags.append(Flag("--max-running-requests", (str(most),), f"the plan's decode ends at {most} tokens"))
    return flags + _for_gpus(file) if file.hardware.backend == "nccl" else flags


def _for_gpus(file: StrategyFile) -> list[Flag]:
    """FlashInfer's fusion and graphs of both modes are on by default there."""
    fusion = Flag(
        "--enforce-disable-flashinfer-allreduce-fusion",
        (),
        "every sum that it would take, up to 2048 tokens, has an op in the plan; the gain over the stock server counts "
        "it where that turns it on by itself",
    )
    if file.parallelism.attn_dp > 1:
        return [fusion, Flag("--disable-cuda-graph", (), "graphs were never run under a plan with attention DP")]
    flags = [fusion]
    prefill, decode = file.modes.get("prefill", ()), file.modes.get("decode", ())
    if "mixed" in file.modes and prefill:
        reason = "a mixed batch would replay the graph of a prefill, and the plan has ops of its own for it"
        flags.append(Flag("--disable-prefill-cuda-graph", (), reason))
    elif len(prefill) > 1 and (sizes := with_ends(prefill, _captured_prefills(file))):
        flags.append(_captured(PREFILL_GRAPHS, sizes))
    if len(decode) > 1:
        flags.append(_captured(DECODE_GRAPHS, sizes_for(decode)))
    return flags


def _captured(graphs: Captures, sizes: Iterable[int]) -> Flag:
    return Flag(graphs.flag, tuple(map(str, sizes)), "no graph may serve two ranges of the plan")


def _captured_prefills(file: StrategyFile) -> list[int]:
    """Prefills that SGLang captures by itself, with the chunk that the plan needs."""
    most = longest_chunk(file)
    if file.model.architecture in WITH_LATENTS:
        most = min(most, MOST_LATENT)
    return [size for size in (*PREFILL_STEPS, *range(PREFILL_STEPS[-1] + 512, most + 1, 512)) if size <= most]


def check_installed() -> None:
    """Raises RefusedError unless this Python has a tested SGLang that will find the plugin."""
    try:
        found = version("sglang")
    except PackageNotFoundError:
        raise RefusedError(
            f"SGLang {' or '.join(TESTED_VERSIONS)} is not installed beside commplan; in SGLang's environment: "
            f"pip install . {CHECKOUT}",
            field="sglang",
        ) from None
    check_version(found)
    if not any(point.value.startswith("commplan.") for point in entry_points(group="sglang.srt.plugins")):
        raise RefusedError(
            f"this installation of commplan does not announce its plugin; install it again: pip install . {CHECKOUT}",
            field="sglang.srt.plugins",
        )
