"""Servers side by side, asked in turn: time to first token, and time of a decode step.

One server is asked at a time, and all of them before the first is asked again, so that what drifts (clocks, host)
drifts for all. Prompts are random tokens, the same for every server of a turn.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from running import Server

WARM_UP, PROMPT = 2, 64
"""Turns that are not counted, and tokens of each prompt of a decode."""
SHORT, OFTEN = 8192, 4
"""Prompts below so many tokens are asked so many times as often: they are quick, and scatter by a fifth."""
Write = Callable[..., None]


class Turns:
    """The servers that still answer, and how they are asked. `until`: by time.monotonic."""

    def __init__(self, servers: Sequence[Server], repetitions: int, vocabulary: int, until: float) -> None:
        self.servers, self.repetitions = list(servers), repetitions
        self._vocabulary, self._until = vocabulary, until

    def prompts(self, count: int, tokens: int, seed: int) -> list[list[int]]:
        """`count` prompts of random tokens."""
        rng = random.Random(f"{count} {tokens} {seed}")
        return [[rng.randrange(2, self._vocabulary) for _ in range(tokens)] for _ in range(count)]

    def is_over(self) -> bool:
        """True where no time is left, or nobody to ask."""
        return time.monotonic() > self._until or not self.servers

    def timed(self, count: int, tokens: int, new_tokens: Sequence[int], often: int = 1) -> dict[str, list[list[float]]]:
        """Server to samples, each of the milliseconds of a request for every count of new tokens.

        Whoever fails is left out from then on; where time runs out, what came until then is the answer.
        """
        found: dict[str, list[list[float]]] = {server.name: [] for server in self.servers}
        for turn in range(-WARM_UP, often * self.repetitions):
            order = list(self.servers)
            for server in order[turn % len(order) :] + order[: turn % len(order)]:
                if self.is_over():
                    return found
                prompts = self.prompts(count, tokens, turn)
                sample = self._sample(server, prompts, new_tokens)
                if sample is not None and turn >= 0:
                    found[server.name].append(sample)
            if not self.servers:
                break
        return found

    def _sample(self, server: Server, prompts: list[list[int]], new_tokens: Sequence[int]) -> list[float] | None:
        left = max(5.0, self._until - time.monotonic())
        try:
            return [round(server.generate(prompts, n, left)[0], 3) for n in new_tokens]
        except (OSError, ValueError) as error:
            self.servers.remove(server)
            why = f"{server.name}: failed with {error!r}"[:300]
            if time.monotonic() <= self._until:  # else it is the time that is over
                print(f"{why}\n-- {server.log.name}\n{server.tail()}", flush=True)
            return None


def ttft(turns: Turns, tokens: int) -> Iterator[dict[str, Any]]:
    """A row for each server: one prompt of so many tokens, one new token."""
    for name, samples in turns.timed(1, tokens, (1,), OFTEN if tokens < SHORT else 1).items():
        if samples:
            yield {"what": "ttft", "configuration": name, "tokens": tokens, "ms": [ms for (ms,) in samples]}


def decode(turns: Turns, batch: int, new_tokens: int) -> Iterator[dict[str, Any]]:
    """A row for each server: so many prompts at once; a step is what the tokens after the first take, each."""
    for name, samples in turns.timed(batch, PROMPT, (1, new_tokens)).items():
        if samples:
            steps = [round((whole - first) / (new_tokens - 1), 4) for first, whole in samples]
            yield {"what": "decode", "configuration": name, "batch": batch, "new_tokens": new_tokens, "ms": steps}
