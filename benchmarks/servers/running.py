"""A server's processes: started, asked over HTTP on the loopback interface, and ended, every one of them."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

# Multicast over NVLink is no part of the comparison, and a fault in it takes more than one program down.
NO_MULTICAST = {"NCCL_NVLS_ENABLE": "0", "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1", "NVSHMEM_DISABLE_NVLS": "1"}
_OTHERS = {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
    # Servers that start beside each other find a different amount of memory on every card.
    "SGLANG_ENABLE_TP_MEMORY_INBALANCE_CHECK": "0",
}
# SGLang imports every model that it has, unless told: a minute on a machine that has compiled nothing yet.
_MODELS = {"__init__", "registry", "utils", "transformers", "llama", "qwen2", "qwen3", "qwen2_moe", "qwen3_moe"}
_MODELS |= {"deepseek_v2", "deepseek_common"}
_GRACE_S = 10
LEAST_S = 60
"""With less time than this no server is started."""
# Made once: an opener loads the machine's certificates, 25 ms that would stand in every sample.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def environment(plan: Path | None, hook: Path | None, more: Mapping[str, str]) -> dict[str, str]:
    """Of a server: this process's own without proxies, then what the benchmark wants."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    kept.pop("COMMPLAN_STRATEGY", None)
    paths = [str(hook)] if hook else []
    paths += [kept["PYTHONPATH"]] if kept.get("PYTHONPATH") else []
    for name, value in {**NO_MULTICAST, **_OTHERS, "SGLANG_DISABLED_MODEL_ARCHS": _skipped_models()}.items():
        kept.setdefault(name, value)
    found = {**kept, **({"PYTHONPATH": os.pathsep.join(paths)} if paths else {}), **more}
    return found if plan is None else {**found, "COMMPLAN_STRATEGY": str(plan)}


def _skipped_models() -> str:
    try:
        folder = Path(str(distribution("sglang").locate_file("sglang/srt/models")))
    except PackageNotFoundError:
        return ""
    return ",".join(sorted(path.stem for path in folder.glob("*.py") if path.stem not in _MODELS))


def free_port(taken: set[int]) -> int:
    """A port that nobody holds, nor the one after it, where ranks meet: two servers that start at once and look for
    one themselves may find the same."""
    for port in random.sample(range(12_000, 21_900, 10), 100):  # at random: it is bound later, and others look too
        if port not in taken and _is_free(port) and _is_free(port + 1):
            taken.add(port)
            return port
    raise RuntimeError("no free port from 12000 to 21900")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


class Server:
    """A server of one configuration, from its start to its end. `command` lacks host and port."""

    def __init__(self, name: str, command: Sequence[str], env: Mapping[str, str], port: int, log: Path) -> None:
        self.name, self.port, self.log = name, port, log
        self.command = [*command, "--host", "127.0.0.1", "--port", str(port), "--nccl-port", str(port + 1)]
        self.began, self.up_after_s = time.monotonic(), 0.0
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as out:
            out.write((" ".join(self.command) + "\n").encode())
            out.flush()
            self.process = subprocess.Popen(
                self.command,
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=dict(env),
                cwd=log.parent,
                start_new_session=True,
            )

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, body: object = None, timeout_s: float = 60) -> Any:
        """GET, or POST of a JSON document; the answer's JSON, or None. Raises OSError."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"content-type": "application/json"})
        with _OPENER.open(request, timeout=timeout_s) as answer:
            text = answer.read()
        try:
            return json.loads(text or b"null")
        except ValueError:
            return None

    def generate(self, prompts: list[list[int]], new_tokens: int, timeout_s: float, **more: Any) -> tuple[float, Any]:
        """Milliseconds from the request to its whole answer, and the answer. Greedy."""
        sampling = {"temperature": 0, "max_new_tokens": new_tokens, "ignore_eos": True}
        began = time.perf_counter()
        answer = self.ask("/generate", {"input_ids": prompts, "sampling_params": sampling, **more}, timeout_s)
        return (time.perf_counter() - began) * 1e3, answer

    def is_up(self) -> bool:
        """True where it serves."""
        try:
            self.ask("/health", timeout_s=5)
        except (OSError, ValueError):
            return False
        self.up_after_s = self.up_after_s or time.monotonic() - self.began
        return True

    def has_ended(self) -> bool:
        """True where its first process is gone."""
        return self.process.poll() is not None

    def tail(self, lines: int = 40) -> str:
        """The last lines of its log, each cut to what a screen holds."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(line[:300] for line in text.splitlines()[-lines:])

    def has_logged(self, text: str) -> bool:
        """True where a text stands in its log."""
        return text in self.log.read_text(errors="replace")

    def end(self) -> None:
        """Ask its processes to end, wait a little, kill what is left. Nothing but its own session is touched."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            self._signal(number)
            if wait_until(lambda: not members(self.process.pid), _GRACE_S, 0.1):
                break
        self.process.wait(timeout=_GRACE_S)

    def kill(self) -> None:
        """End it at once."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        for member in members(self.process.pid):
            try:
                os.kill(member, number)
            except ProcessLookupError:
                continue


def members(session: int) -> list[int]:
    """Live processes of a session that `start_new_session` opened; zombies do not count."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def wait_until(condition: Callable[[], bool], seconds: float, step_s: float = 0.5) -> bool:
    """True as soon as a condition holds, False when time is up."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(step_s)
    return True


def wait_for_all(servers: Sequence[Server], seconds: float) -> list[Server]:
    """Those that serve once all do, have ended, or time is up."""
    up: list[Server] = []

    def settled() -> bool:
        for server in servers:
            if server not in up and not server.has_ended() and server.is_up():
                up.append(server)
                print(f"{server.name}: up after {server.up_after_s:.0f} s", flush=True)
        return all(server in up or server.has_ended() for server in servers)

    wait_until(settled, seconds)
    return [server for server in servers if server in up]
