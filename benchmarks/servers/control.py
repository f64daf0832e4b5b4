"""What another order of rounding does to the logprobs of the proof's checkpoints, and what of it is other experts.

    python benchmarks/servers/control.py --markdown                         # some ten minutes on two cores, no GPU

A model is cut for two ranks in one process, on the CPU, and answers the proof's prompts with its sums rounded as the
server does it, as commplan's kernels do, and in other ways. Where that changes which experts a token goes to, its
logprob may be far off though no sum is wrong. So each order is run again with every token sent to the experts that it
had in the first run, by weights of its own scores: what is left is rounding. Spoiled sums show what a fault looks like,
and what of it the proof's verdict sees.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from answers import BOUNDS, PROMPTS, compared, prompt_of, verdict
from checkpoints import FAMILIES, ROUTED, write_checkpoint
from tables import table
from torch import Tensor, nn

RANKS = 2
_ROWS = ("q_proj", "k_proj", "v_proj", "q_b_proj", "kv_b_proj", "gate_proj", "up_proj")
_COLUMNS = ("o_proj", "down_proj")


# ---- orders of rounding ----------------------------------------------------------------------------------------------

Order = Callable[[Sequence[Tensor], Tensor, Any], tuple[Tensor, Tensor]]
"""Partial sums of the ranks, the residual and a norm to the normed rows and the new residual."""


def server(partials: Sequence[Tensor], residual: Tensor, norm: Any) -> tuple[Tensor, Tensor]:
    """A sum, then the server's norm: of the total before it is rounded, rounded once, behind the weight."""
    total = _sum(partials).to(residual.dtype).float() + residual.float()
    return (_over_rms(total, norm) * norm.weight.float()).to(residual.dtype), total.to(residual.dtype)


def commplan(partials: Sequence[Tensor], residual: Tensor, norm: Any) -> tuple[Tensor, Tensor]:
    """As `finish_row` of commplan's kernels: the sum, the total and the normed row before its weight are rounded."""
    total = (_sum(partials).to(residual.dtype).float() + residual.float()).to(residual.dtype)
    return norm.weight * _over_rms(total.float(), norm).to(residual.dtype), total


def wide(partials: Sequence[Tensor], residual: Tensor, norm: Any) -> tuple[Tensor, Tensor]:
    """Sum, total and norm in fp32, each result rounded once: no plan's order, but the nearest to no rounding."""
    total = _sum(partials) + residual.float()
    return (_over_rms(total, norm) * norm.weight.float()).to(residual.dtype), total.to(residual.dtype)


def int8_gather(partials: Sequence[Tensor], residual: Tensor, norm: Any) -> tuple[Tensor, Tensor]:
    """Every rank's rows in INT8, then as `commplan`."""
    return commplan([_int8(rows) for rows in partials], residual, norm)


def int8_two_shot(partials: Sequence[Tensor], residual: Tensor, norm: Any) -> tuple[Tensor, Tensor]:
    """The sum of those in INT8 once more."""
    return commplan([_int8(_sum([_int8(rows) for rows in partials]))], residual, norm)


def _sum(partials: Sequence[Tensor]) -> Tensor:
    return torch.stack([rows.float() for rows in partials]).sum(0)


def _int8(rows: Tensor) -> Tensor:
    scale = rows.float().abs().amax(-1, keepdim=True) / 127
    return (rows.float() / scale).round() * scale


def _over_rms(total: Tensor, norm: Any) -> Tensor:
    return total * torch.rsqrt(total.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)


ORDERS: dict[str, tuple[Order, str]] = {
    "norm inside": (commplan, "reordered"),
    "all in fp32": (wide, "reordered"),
    "INT8 gather": (int8_gather, "quantized"),
    "INT8 two_shot": (int8_two_shot, "quantized"),
}
"""What is held against the server's order, and the class of its bound."""


# ---- faults of one sum -----------------------------------------------------------------------------------------------


class _Weightless(NamedTuple):
    weight: Tensor
    variance_epsilon: float


def no_weight(partials: Sequence[Tensor], residual: Tensor, norm: Any) -> tuple[Tensor, Tensor]:
    """The norm's weight left out."""
    return commplan(partials, residual, _Weightless(torch.ones_like(norm.weight), norm.variance_epsilon))


def one_rank(partials: Sequence[Tensor], residual: Tensor, norm: Any) -> tuple[Tensor, Tensor]:
    """The other rank's rows left out."""
    return commplan(partials[:1], residual, norm)


def no_residual(partials: Sequence[Tensor], residual: Tensor, norm: Any) -> tuple[Tensor, Tensor]:
    """The residual left out."""
    return commplan(partials, torch.zeros_like(residual), norm)


def next_row(partials: Sequence[Tensor], residual: Tensor, norm: Any) -> tuple[Tensor, Tensor]:
    """The other rank's rows one place off."""
    return commplan([partials[0], partials[1].roll(1, -2)], residual, norm)


def short_row(partials: Sequence[Tensor], residual: Tensor, norm: Any) -> tuple[Tensor, Tensor]:
    """The last 32 columns of the other rank left out."""
    rows = partials[1].clone()
    rows[..., -32:] = 0
    return commplan([partials[0], rows], residual, norm)


def some_rows(every: int, partials: Sequence[Tensor], residual: Tensor, norm: Any) -> tuple[Tensor, Tensor]:
    """Every so manieth row of the other rank left out."""
    rows = partials[1].clone()
    rows[..., every - 1 :: every, :] = 0
    return commplan([partials[0], rows], residual, norm)


FAULTS: dict[str, Order] = {
    "weight of the norm left out": no_weight,
    "one rank left out": one_rank,
    "residual left out": no_residual,
    "rows of one rank one place off": next_row,
    "last 32 columns of one rank left out": short_row,
    "every 8th row of one rank left out": partial(some_rows, 8),
    "every 64th row of one rank left out": partial(some_rows, 64),
}
PLACES = {"attention of the first layer": 0, "MLP of the second": 3}
"""Sums that are spoiled, by their index: two a layer."""


# ---- a model, cut for ranks ------------------------------------------------------------------------------------------


class Router(nn.Module):
    """A model's own router that keeps what it chose, or sends tokens where it is told."""

    def __init__(self, router: nn.Module, sigmoid: bool) -> None:
        super().__init__()
        self.router, self._sigmoid = router, sigmoid
        self.told: Tensor | None = None
        self.chose = self._logits = torch.empty(0)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As the model's: logits, weights of experts, experts."""
        self._logits, weights, self.chose = self.router(hidden)
        if self.told is None:
            return self._logits, weights, self.chose
        return self._logits, self.weights_of(self.told).to(weights.dtype), self.told

    def weights_of(self, experts_TK: Tensor) -> Tensor:
        """The weights that the model gives these experts of each token, by the scores of its last call."""
        logits = self._logits.float()
        scores = (logits.sigmoid() if self._sigmoid else logits.softmax(-1)).gather(-1, experts_TK)
        return scores / scores.sum(-1, keepdim=True) * getattr(self.router, "routed_scaling_factor", 1.0)


class Cut:
    """A model of a family in one process, with the attention and MLP of each layer once for each rank."""

    def __init__(self, family: str, folder: Path, dtype: torch.dtype = torch.bfloat16) -> None:
        from transformers import AutoModelForCausalLM

        how = {"dtype": dtype, "attn_implementation": "sdpa", "experts_implementation": "eager"}
        self.model = AutoModelForCausalLM.from_pretrained(folder, **how).eval()
        self.routers: list[Router] = []
        self._parts: list[tuple[list[nn.Module], list[nn.Module]]] = []
        layers = self.model.model.layers
        for layer in layers:
            parts = [[part(module, rank) for rank in range(RANKS)] for module in (layer.self_attn, layer.mlp)]
            if hasattr(layer.mlp, "gate"):
                self.routers.append(Router(layer.mlp.gate, sigmoid=family == "deepseek_v3"))
                for mlp in parts[1]:
                    mlp.gate = self.routers[-1]
            self._parts.append((parts[0], parts[1]))
        norms = [norm for layer in layers for norm in (layer.input_layernorm, layer.post_attention_layernorm)]
        self._norms = [*norms[1:], self.model.model.norm]

    @torch.no_grad()
    def logprobs(self, prompt: list[int], orders: Sequence[Order]) -> Tensor:
        """Of every token but the first, and of the likeliest behind them. `orders`: of each sum."""
        ids = torch.tensor(prompt)
        positions = torch.arange(len(prompt))[None]
        residual = self.model.model.embed_tokens(ids[None])
        hidden = self.model.model.layers[0].input_layernorm(residual)
        given = {
            "position_embeddings": self.model.model.rotary_emb(hidden, positions),
            "position_ids": positions,
            "attention_mask": None,
        }
        for i, (attention, mlp) in enumerate(self._parts):
            partials = [one(hidden_states=hidden, **given)[0] for one in attention]
            hidden, residual = orders[2 * i](partials, residual, self._norms[2 * i])
            partials = [one(hidden) for one in mlp]
            hidden, residual = orders[2 * i + 1](partials, residual, self._norms[2 * i + 1])
        found = self.model.lm_head(hidden)[0].float().log_softmax(-1)
        return torch.cat([found[:-1].gather(-1, ids[1:, None])[:, 0], found[-1].amax()[None]])

    def answers(self, prompts: Sequence[int], orders: Sequence[Order], told: Choices | None = None) -> Answers:
        """To the proof's prompts of these lengths, by experts of its own choice or by those that it is told."""
        found, chose = [], []
        for place, length in enumerate(prompts):
            for i, router in enumerate(self.routers):
                router.told = None if told is None else told[place][i]
            found.append(self.logprobs(prompt_of(length), orders))
            chose.append([router.chose.sort(-1).values for router in self.routers])
        return Answers(found, chose)

    def everywhere(self, order: Order) -> list[Order]:
        """The same order at all sums."""
        return [order] * len(self._norms)


Choices = list[list[Tensor]]
"""By prompt and layer with experts: the experts [T, K] of each token."""


class Answers(NamedTuple):
    """Logprobs by prompt, and the experts that the routers chose, whether they were used or not."""

    logprobs: list[Tensor]
    chose: Choices

    def as_told(self) -> list[dict[str, Any]]:
        """As those of a server."""
        return [{"tokens": [], "prefill": one.tolist(), "decode": []} for one in self.logprobs]


def part(module: nn.Module, rank: int) -> nn.Module:
    """What one rank has of an attention or an MLP."""
    cut = copy.deepcopy(module)
    for name, child in cut.named_modules():
        last = name.rpartition(".")[2]
        if isinstance(child, nn.Linear) and last in (*_ROWS, *_COLUMNS):
            child.weight = _piece(child.weight, 0 if last in _ROWS else 1, rank)
        elif last == "experts":
            gate, up = child.gate_up_proj.chunk(2, dim=1)
            child.gate_up_proj = nn.Parameter(torch.cat([_piece(gate, 1, rank), _piece(up, 1, rank)], dim=1))
            child.down_proj = _piece(child.down_proj, 2, rank)
    return cut


def _piece(weight: Tensor, dim: int, rank: int) -> nn.Parameter:
    return nn.Parameter(weight.chunk(RANKS, dim)[rank].contiguous())


# ---- what is compared ------------------------------------------------------------------------------------------------


def rows_of(family: str, cut: Cut, prompts: Sequence[int] = PROMPTS) -> Iterator[dict[str, Any]]:
    """Every order, free and with the experts of the server's, and every fault, each held against the server's order."""
    wanted = cut.answers(prompts, cut.everywhere(server))
    for name, (order, bound) in ORDERS.items():
        found = cut.answers(prompts, cut.everywhere(order))
        yield {"run": name, "experts": "its own", **held(family, wanted, found, bound)}
        if cut.routers:
            found = cut.answers(prompts, cut.everywhere(order), wanted.chose)
            yield {"run": name, "experts": "the server's", **held(family, wanted, found, bound)}
    for name, fault in FAULTS.items():
        for place, index in PLACES.items():
            orders = cut.everywhere(commplan)
            orders[index] = fault
            found = cut.answers(prompts, orders)
            row = held(family, wanted, found, "reordered")
            yield {"run": f"{name}: {place}", "experts": "its own", **row}


def held(family: str, wanted: Answers, found: Answers, bound: str) -> dict[str, Any]:
    """A row as the proof has it, its verdict, the tokens whose experts differ and the largest error of the others.

    A token has other experts where the routers of any layer chose another set: with experts that were told, where they
    would have.
    """
    row = next(compared(wanted.as_told(), found.as_told(), BOUNDS[bound]))
    errors = torch.cat([(a - b).abs() for a, b in zip(wanted.logprobs, found.logprobs, strict=True)])
    other = torch.zeros(len(errors), dtype=torch.bool)
    if family in ROUTED:
        pairs = zip(wanted.chose, found.chose, strict=True)
        other = torch.cat([_differ(a, b) for a, b in pairs])
    return {
        **row,
        "other_experts": int(other.sum()),
        "error_of_same": errors[~other].max().item() if not other.all() else 0.0,
        "verdict": verdict(row, BOUNDS[bound], family in ROUTED),
    }


def _differ(wanted: list[Tensor], found: list[Tensor]) -> Tensor:
    return torch.stack([(a != b).any(-1) for a, b in zip(wanted, found, strict=True)]).any(0)


def shown(rows: dict[str, list[dict[str, Any]]], markdown: bool) -> str:
    """A table, all errors over the largest logprob."""
    head = ["family", "sums", "experts", "tokens with others", "largest error", "of those with the same", "middle"]
    lines = [[*head, "nine tenths", "beyond", "verdict"]]
    for family, of in rows.items():
        for row in of:
            fields = ("error", "error_of_same", "middle", "nine_tenths")
            errors = [f"{row[name] / row['largest']:.4f}" for name in fields]
            other = f"{row['other_experts'] / row['compared']:.1%}" if family in ROUTED else "-"
            experts = row["experts"] if family in ROUTED else "-"
            beyond = f"{row['beyond']} of {row['compared']}"
            lines.append([family, row["run"], experts, other, *errors, beyond, row["verdict"]])
    return str(table(lines, markdown))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--families", default=",".join(FAMILIES), help=f"of {','.join(FAMILIES)}")
    add("--prompts", default=",".join(map(str, PROMPTS)), help="their lengths")
    add("--markdown", action="store_true", help="the table in Markdown")
    options = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for family in options.families.split(","):
            cut = Cut(family, write_checkpoint(family, Path(folder) / family))
            rows[family] = list(rows_of(family, cut, [int(length) for length in options.prompts.split(",")]))
    print(shown(rows, options.markdown))


if __name__ == "__main__":
    main()
