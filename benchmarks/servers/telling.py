"""What a server, or the machine, tells of itself: the GPUs and versions, resolved arguments, executed ops."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from running import Server

_LAUNCH, _PLACES = "sglang.launch_server", ("--model-path", "--host", "--port", "--nccl-port")
_TOLD = ("attention_backend", "flashinfer_allreduce_fusion_backend", "disable_custom_all_reduce", "enable_layernorm_sp")


def card() -> str:
    """The GPUs and the versions that matter, in a line."""
    names = _asked_of_the_driver("name").splitlines()[:2]
    versions = ", ".join(f"{name} {_version(name)}" for name in ("sglang", "torch"))
    return f"{f'2 x {names[0].strip()}' if names else 'CPU'}, {versions}"


def clocks() -> str:
    """Clocks, temperature, power and memory of each GPU, a line each."""
    return _asked_of_the_driver("clocks.sm,clocks.mem,temperature.gpu,power.draw,memory.used")


def _asked_of_the_driver(fields: str) -> str:
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def arguments_of(command: Sequence[str]) -> str:
    """The arguments of a server, without those that name places of a machine."""
    words = list(command)[command.index(_LAUNCH) + 1 :] if _LAUNCH in command else []
    found = []
    while words:
        word = words.pop(0)
        if word in _PLACES:
            words.pop(0)
        else:
            found.append(word)
    return shlex.join(found)


def says(server: Server) -> dict[str, Any]:
    """What a server has made of its arguments: those that matter to its sums and graphs."""
    try:
        info = server.ask("/server_info", timeout_s=30) or {}
    except (OSError, ValueError):
        return {}
    return told_in(info)


def told_in(info: dict[str, Any]) -> dict[str, Any]:
    """The same of an answer."""
    told = {field: info[field] for field in _TOLD if info.get(field)}
    for phase, graphs in (info.get("cuda_graph_config") or {}).items():
        if isinstance(graphs, dict) and graphs.get("backend"):
            sizes = graphs.get("bs") or []
            on = graphs["backend"] != "disabled" and sizes
            told[f"{phase} graphs"] = f"{graphs['backend']}, {len(sizes)} up to {max(sizes)}" if on else "none"
    return told


def counted(server: Server) -> tuple[list[str], list[dict[str, Any]]]:
    """Where executed ops differ from forwards x plan, and the forwards of rank 0. Raises CommplanError."""
    from commplan.planner.strategy.file import parse
    from commplan.runtime.servers.executed import differences
    from commplan.runtime.servers.sglang.answer import ask

    told = ask(server.url, 60)
    file = parse(told["strategy"])
    found = [f"rank {r}: {line}" for r, rank in enumerate(told["ranks"]) for line in differences(file, rank)]
    return found, told["ranks"][0]["forwards"]
