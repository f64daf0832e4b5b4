"""The command line of a server under a plan: what the plan needs, and nothing that the user has said already."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, entry_points, version

from commplan.planner.strategy.file import StrategyFile
from commplan.planner.strategy.packages import CHECKOUT

from ...errors import RefusedError
from ..captured_sizes import sizes_for
from .arguments import longest_chunk, most_requests
from .server_fit import check_version
from .words import TESTED_VERSIONS

_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def server_command(file: StrategyFile, model_path: str, extra: Sequence[str] = ()) -> list[str]:
    """`python -m sglang.launch_server` with what the plan needs, then `extra` as it is.

    -P keeps the current folder out of the import path: a checkout that stands there could hide the installed plugin.
    """
    given = {argument.split("=")[0] for argument in extra}
    added: list[str] = []
    for flag, *values in (("--model-path", model_path), *needed(file)):
        if flag not in given:
            added += [flag, *values]
    return [sys.executable, "-P", "-m", "sglang.launch_server", *added, *extra]


def needed(file: StrategyFile) -> list[tuple[str, ...]]:
    """Flags without which the plan would be refused, each with its values."""
    p = file.parallelism
    flags: list[tuple[str, ...]] = [("--tp-size", str(p.tp))]
    flags += [("--attn-dp-size", str(p.attn_dp))] if p.attn_dp > 1 else []
    flags += [("--ep-size", str(p.ep))] if p.ep > 1 else []
    flags.append(("--dtype", _DTYPES[file.deployment.activations]))
    if "prefill" in file.modes:
        flags.append(("--chunked-prefill-size", str(longest_chunk(file))))
    if "decode" in file.modes:
        flags.append(("--max-running-requests", str(most_requests(file))))
    return flags + _for_gpus(file) if file.hardware.backend == "nccl" else flags


def _for_gpus(file: StrategyFile) -> list[tuple[str, ...]]:
    """FlashInfer's fusion and prefill graphs are on by default there."""
    flags: list[tuple[str, ...]] = [
        ("--enforce-disable-flashinfer-allreduce-fusion",),
        ("--disable-prefill-cuda-graph",),
    ]
    if file.parallelism.attn_dp > 1:
        return [*flags[:1], ("--disable-cuda-graph",)]
    decode = file.modes.get("decode", ())
    if len(decode) > 1:
        flags.append(("--cuda-graph-bs-decode", *map(str, sizes_for(decode))))
    return flags


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
