"""The shape of the work in one forward: how many requests, what each token attends to, which rows need logits."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..descriptions.deployment import ModeSpec


@dataclass(frozen=True, slots=True)
class Work:
    """Sums over the T tokens of one forward of the whole tp group.

    attended   key positions that all queries attend to, together (causal prefill attends to half its own sequence)
    cached     key positions that are read from the cache, each request's once
    requests   number of requests
    logits     rows whose logits are needed
    """

    tokens: int
    attended: float
    cached: float
    requests: float
    logits: int

    def capped(self, most: int | None) -> float:
        """Key positions attended to when a sparse index keeps at most `most` per query."""
        return self.attended if most is None else min(self.attended, float(self.tokens) * most)

    def windowed(self, window: int | None) -> Work:
        """The same work where each query attends to `window` positions at most."""
        if window is None:
            return self
        attended, cached = self.tokens * float(window), self.requests * window + self.tokens
        return replace(self, attended=min(self.attended, attended), cached=min(self.cached, cached))


def work_of(mode: str, spec: ModeSpec, tokens: int) -> Work:
    """The work of `tokens` rows in a forward mode."""
    if mode == "mixed":
        decoding = round(tokens * (spec.decode_fraction or 0.0))
        a, b = _prefill(spec, tokens - decoding), _decode(spec, decoding, 1)
        return Work(tokens, a.attended + b.attended, a.cached + b.cached, a.requests + b.requests, a.logits + b.logits)
    if mode == "prefill":
        return _prefill(spec, tokens)
    return _decode(spec, tokens, spec.draft_tokens or 1)


def _prefill(spec: ModeSpec, tokens: int) -> Work:
    if tokens == 0:
        return Work(0, 0.0, 0.0, 0.0, 0)
    assert spec.sequence_tokens is not None
    length, prefix = min(spec.sequence_tokens, tokens), spec.prefix_tokens
    whole, rest = divmod(tokens, length)
    requests = whole + (rest > 0)
    attended = whole * _causal(length, prefix) + _causal(rest, prefix)
    cached = float(requests * prefix + tokens)
    return Work(tokens, attended, cached, float(requests), requests)


def _causal(length: int, prefix: int) -> float:
    return length * (prefix + (length + 1) / 2)


def _decode(spec: ModeSpec, tokens: int, rows_per_request: int) -> Work:
    if tokens == 0:
        return Work(0, 0.0, 0.0, 0.0, 0)
    assert spec.context_tokens is not None
    requests = float(-(-tokens // rows_per_request))
    attended = tokens * (spec.context_tokens + (rows_per_request + 1) / 2)
    return Work(tokens, attended, requests * (spec.context_tokens + rows_per_request), requests, tokens)
