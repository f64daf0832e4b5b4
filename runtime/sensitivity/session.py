"""One measurement of a checkpoint on a text: loaded, measured place by place, kept, written."""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from commplan.planner.strategy.file import QUANTIZED_ALL_REDUCE, InputError, Op, config_fingerprint

from ..errors import RefusedError
from ..transformers.checkpoint_fit import read_config
from ..transformers.models import adapter_for
from .texts import is_checkpoint, token_windows


def ops_of(wires: tuple[str, ...], gather: bool) -> tuple[Op, ...]:
    """Two shots in each format named WIRE/GROUP, gathers where asked for; RefusedError for one that there is not."""
    errors = QUANTIZED_ALL_REDUCE.errors
    found = []
    for text in dict.fromkeys(wires):
        wire, _, group = text.partition("/")
        if (wire, group or "token", "two_shot") not in errors:
            known = dict.fromkeys(f"{w}/{g}" for w, g, _ in errors)
            raise RefusedError(f"no such format; there are {', '.join(known)}", field="--wire", value=text)
        for algorithm in ("two_shot", "gather") if gather else ("two_shot",):
            found.append(_op(wire, group or "token", algorithm))
    return tuple(found)


def _op(wire: str, group: Any, algorithm: str) -> Op:
    if (wire, group) == ("int8", "token"):
        return Op("int8_all_reduce", algorithm=algorithm)
    return Op("quantized_all_reduce", algorithm=algorithm, wire_name=wire, scale_group=group)


class Session:
    """A checkpoint and a text; raises RefusedError where they cannot be measured, before anything is written."""

    def __init__(
        self,
        checkpoint: str,
        text: str,
        output: str,
        ranks: int,
        ops: tuple[Op, ...],
        tokens: int,
        window: int,
        batch: int,
    ) -> None:
        from .record import Record

        if output == "-":
            raise RefusedError("a file is expected: results are kept beside it", field="--output", value=output)
        config = read_config(checkpoint)
        is_checkpoint(checkpoint)
        adapter_for(str((config.get("architectures") or ["none"])[0]))
        windows, digest = token_windows(checkpoint, text, window, tokens)
        self.checkpoint, self.output, self.ranks, self.ops, self.batch = checkpoint, output, ranks, ops, batch
        self.windows, self.tokens = windows, len(windows) * window
        self.names = [_name(op) for op in ops]
        layers = _layers(config)
        self.sums = 2 * layers
        self._about: dict[str, Any] = {
            "model": _fingerprint(config, checkpoint),
            "ranks": ranks,
            "tokens": self.tokens,
            "window": window,
            "text": digest,
            "versions": f"torch {version('torch').split('+')[0]}, transformers {version('transformers')}",
        }
        self.record = Record(output, self._about | {"formats": self.names}, layers)

    def measure(self) -> Iterator[tuple[tuple[int, str], Any]]:
        """Every sum that is not known yet, with its result, which is on the disk by then."""
        if len(self.record.known) == self.sums:
            return
        from .losses import Losses
        from .measure import exact_loss, measure

        losses = Losses(*self._emulated(), self.batch)
        exact = exact_loss(losses)
        if self.record.exact is None:
            self.record.exact = exact
        for place, result in measure(losses, self.ops, self.record.known, self.record.exact):
            self.record.add(place, result)
            yield place, result

    def _emulated(self) -> tuple[Any, Any]:
        import torch

        from ..transformers.loading import whole_model
        from .emulated_ranks import EmulatedRanks

        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = whole_model(self.checkpoint).to(device)
        ids = torch.tensor(self.windows)
        vocab = model.config.get_text_config().vocab_size
        if int(ids.max()) >= vocab:
            raise RefusedError(f"its tokenizer gives ids above vocab_size {vocab}", file=self.checkpoint)
        return EmulatedRanks(model, self.ranks), ids.to(device)

    @property
    def perplexity(self) -> float:
        """Where every sum is exact."""
        assert self.record.exact is not None
        return math.exp(self.record.exact)

    def rises(self) -> dict[str, float]:
        """The relative rise of perplexity with every sum in one format, by its name."""
        found = self.record.known.values()
        return {
            name: math.expm1(sum(max(0.0, each.effects[index].loss) for each in found))
            for index, name in enumerate(self.names)
        }

    def save(self) -> None:
        """Write the sensitivity file."""
        assert self.record.exact is not None
        measured = self._about | {
            "perplexity": round(self.perplexity, 6),
            "loss": round(self.record.exact, 8),
            "dtype": "float32",
            "method": "perturbation, one sum at a time, its error with both signs",
        }
        self.record.save(self.output, self.ops, measured)


def _name(op: Op) -> str:
    assert op.wire is not None
    return f"{op.wire.name}/{op.scale_group or 'token'} {op.algorithm}"


def _layers(config: dict[str, Any]) -> int:
    from ..transformers.checkpoint_fit import text_of

    layers = text_of(config).get("num_hidden_layers")
    if type(layers) is not int or layers < 1:
        raise RefusedError("a whole number from 1 is expected", field="num_hidden_layers", value=layers)
    return layers


def _fingerprint(config: dict[str, Any], checkpoint: str) -> str:
    try:
        return str(config_fingerprint(config))
    except InputError as error:
        raise RefusedError(error.message, file=checkpoint, field=error.field, value=error.value) from None
