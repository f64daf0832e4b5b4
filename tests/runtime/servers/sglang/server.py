"""Starting a real SGLang server on CPU ranks, talking to it, and ending everything that it started."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STAND_INS = Path(__file__).parent / "stand_ins"
HEALTHY_WITHIN_S = 900
# What a CPU needs; everything that a plan needs is added by the plugin's user, or by the test.
CPU_ARGUMENTS = (
    *("--device", "cpu", "--dtype", "float32", "--attention-backend", "torch_native"),
    *("--sampling-backend", "pytorch", "--grammar-backend", "none", "--disable-overlap-schedule"),
    *("--mem-fraction-static", "0.3", "--max-total-tokens", "4096", "--skip-server-warmup"),
    *("--chunked-prefill-size", "256", "--max-running-requests", "8"),
)
DERIVED = range(233, 240)  # ports that SGLang binds under attention DP, counted from the server's
RENDEZVOUS = range(22_000, 30_000)  # where it looks for the port of its rendezvous
TRIES = 100


def free_port() -> int:
    """A port nobody holds, nor those that SGLang derives from it under attention DP."""
    candidates = _candidates(_first_of_connections())
    for port in random.sample(candidates, TRIES):
        if all(map(_is_free, (port, *(port + n for n in DERIVED)))):
            return port
    raise RuntimeError(f"no free port between {candidates[0]} and {candidates[-1]}")


def _first_of_connections() -> int:
    """From here on a kernel takes ports for connections."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        return 32_768  # Linux's default; others start higher


def _candidates(first_of_connections: int) -> list[int]:
    """Ports apart from the rendezvous and, if there is room, below connections: SGLang binds the derived ones later."""
    apart = [
        port
        for port in range(1024, 65_536 - DERIVED.stop)
        if port >= RENDEZVOUS.stop or port + DERIVED.stop <= RENDEZVOUS.start
    ]
    below = [port for port in apart if port + DERIVED.stop <= first_of_connections]
    return below[-2500:] if len(below) >= TRIES else apart


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def environment(strategy: Path | None, tp: int = 2) -> dict[str, str]:
    """For a server on a CPU: without proxies, hubs, or more threads than cores."""
    cores = os.cpu_count() or 1
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    kept.pop("COMMPLAN_STRATEGY", None)
    kept |= {
        "PYTHONPATH": str(STAND_INS),
        "SGLANG_USE_CPU_ENGINE": "1",
        "SGLANG_CPU_OMP_THREADS_BIND": "|".join(str(rank % cores) for rank in range(tp)),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return kept if strategy is None else kept | {"COMMPLAN_STRATEGY": str(strategy)}


def command(model: Path, port: int, arguments: Sequence[str] = (), tp: int = 2) -> list[str]:
    """The server's command line. -P: a folder is not a place to import from because one happens to stand in it."""
    own = ("--model-path", str(model), "--tp-size", str(tp), "--host", "127.0.0.1", "--port", str(port))
    return [sys.executable, "-P", "-m", "sglang.launch_server", *own, *CPU_ARGUMENTS, *arguments]


@dataclass
class Server:
    """A running server."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def get(self, path: str, timeout_s: float = 60) -> Any:
        """GET a JSON document."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=timeout_s) as answer:
            return json.loads(answer.read() or "null")

    def post(self, path: str, body: dict[str, Any], timeout_s: float = 180) -> Any:
        """POST a JSON document and read one."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            data=json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            return json.loads(answer.read() or "null")

    def generate(self, tokens: Sequence[int] | Sequence[Sequence[int]], new_tokens: int = 8, **more: Any) -> Any:
        """Greedy continuation of a prompt, or of several at once."""
        sampling = {"temperature": 0, "max_new_tokens": new_tokens, "ignore_eos": True, **more.pop("sampling", {})}
        return self.post("/generate", {"input_ids": list(tokens), "sampling_params": sampling, **more})

    def counts(self) -> list[dict[str, Any]]:
        """What each rank says that it has run."""
        ranks: list[dict[str, Any]] = self.get("/server_info")["internal_states"][0]["commplan"]["ranks"]
        return ranks

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def serving(
    model: Path, folder: Path, strategy: Path | None = None, arguments: Sequence[str] = (), tp: int = 2
) -> Iterator[Server]:
    """A healthy server; when the block ends, so has every process of it."""
    folder.mkdir(parents=True, exist_ok=True)
    port, log = free_port(), folder / f"server-{time.monotonic_ns()}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command(model, port, arguments, tp),
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment(strategy, tp),
            cwd=folder,
            start_new_session=True,
        )
    server = Server(port, process, log)
    try:
        _wait(server)
        yield server
    finally:
        end(process)


def _wait(server: Server) -> None:
    deadline = time.monotonic() + HEALTHY_WITHIN_S
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise RuntimeError(f"the server ended with {server.process.returncode}:\n{tail(server.log)}")
        try:
            server.get("/health", timeout_s=30)
        except (urllib.error.URLError, OSError):
            time.sleep(1)
        else:
            return
    raise RuntimeError(f"the server is not healthy after {HEALTHY_WITHIN_S} s:\n{tail(server.log)}")


def tail(log: Path, lines: int = 40) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def refused(
    model: Path,
    folder: Path,
    strategy: Path,
    arguments: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
    timeout_s: float = HEALTHY_WITHIN_S,
) -> tuple[int, str]:
    """Exit code and output of a server that should not start; fails if anything of it is left running."""
    folder.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        command(model, free_port(), arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        env=environment(strategy) | dict(variables or {}),
        cwd=folder,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout_s)
        # Those that the server itself has told to end get a moment.
        assert wait_until(lambda: not members(process.pid), 10), "processes of the server are left"
    finally:
        end(process)
    return process.returncode, output.decode(errors="replace")


# ---- ending ----------------------------------------------------------------------------------------------------------


def members(session: int) -> list[int]:
    """Live processes of a session that `start_new_session` opened; zombies do not count."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(entry.name))
    return found


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask, wait a little, then kill whatever is left of the server's session."""
    if members(process.pid):
        _signal(process.pid, signal.SIGTERM)
        wait_until(lambda: not members(process.pid), 10)
        _signal(process.pid, signal.SIGKILL)
        wait_until(lambda: not members(process.pid), 10)
    process.wait(timeout=10)


def _signal(session: int, number: int) -> None:
    for member in members(session):
        try:
            os.kill(member, number)
        except ProcessLookupError:
            continue


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """True as soon as a condition holds, False when time is up."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True
