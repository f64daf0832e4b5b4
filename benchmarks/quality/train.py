"""Train a small model of a real shape on the books of texts.py, until it is clearly below a bigram model.

    python benchmarks/quality/train.py SHAPE --text FOLDER -o CHECKPOINT [--seconds 60] [--from CHECKPOINT --inject 100]

SHAPE is qwen3 (grouped-query attention, dense) or deepseek_v3 (latent attention, experts). `--inject` makes an outlier
channel in a trained model, and trains on: every write to one channel of the residual stream is multiplied, every norm
that reads it divides by as much. In bf16 on a GPU, in fp32 on a CPU; saved as fp32.
"""

from __future__ import annotations

import argparse
import functools
import math
import shutil
import time
from array import array
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

VOCAB_SIZE = 4096
_COMMON = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 512,
    "num_attention_heads": 8,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
SHAPES: dict[str, dict[str, Any]] = {
    "qwen3": {"num_hidden_layers": 12, "num_key_value_heads": 4, "head_dim": 64, "intermediate_size": 1536},
    "deepseek_v3": {
        "num_hidden_layers": 8,
        "num_key_value_heads": 8,
        "intermediate_size": 1536,
        "q_lora_rank": 256,
        "kv_lora_rank": 128,
        "qk_nope_head_dim": 32,
        "qk_rope_head_dim": 32,
        "v_head_dim": 64,
        "n_routed_experts": 16,
        "num_experts_per_tok": 4,
        "n_shared_experts": 1,
        "moe_intermediate_size": 256,
        "first_k_dense_replace": 1,
        "n_group": 1,
        "topk_group": 1,
        "tie_word_embeddings": False,
    },
}
CLASSES = {"qwen3": "Qwen3ForCausalLM", "deepseek_v3": "DeepseekV3ForCausalLM"}
CHANNEL = 7  # where an outlier is injected


def tokens(file: Path) -> Tensor:
    """Token ids of a file of texts.py."""
    ids = array("H")
    ids.frombytes(file.read_bytes())
    return torch.tensor(ids, dtype=torch.long)


def windows(ids: Tensor, length: int) -> Tensor:
    """[W, length], without the rest."""
    return ids[: len(ids) // length * length].view(-1, length)


def bigram_loss(train: Tensor, held: Tensor) -> float:
    """Mean loss of the best bigram model that falls back on single tokens, in nats."""
    pairs = torch.bincount(train[:-1] * VOCAB_SIZE + train[1:], minlength=VOCAB_SIZE**2).view(VOCAB_SIZE, VOCAB_SIZE)
    single = (torch.bincount(train, minlength=VOCAB_SIZE) + 1).double()
    single /= single.sum()
    before, after = held[:-1], held[1:]
    seen, of_before = pairs[before, after].double(), pairs.sum(1)[before].double()
    losses = [-((seen + a * single[after]) / (of_before + a)).log().mean().item() for a in (1, 3, 10, 30, 100, 300)]
    return min(losses)


def new_model(shape: str, **changes: Any) -> Any:
    """A random model of a shape."""
    import transformers

    of_class = getattr(transformers, CLASSES[shape])
    config = of_class.config_class(**{**_COMMON, **SHAPES[shape], **changes})
    return of_class(config)


def all_experts_at_once(model: Any) -> None:
    """Every expert on every token, and the chosen ones kept: more arithmetic, and few kernels for small experts."""
    for module in model.modules():
        if isinstance(getattr(module, "gate_up_proj", None), torch.nn.Parameter):
            module.forward = functools.partial(_dense_experts, module)


def _dense_experts(experts: Any, rows_TH: Tensor, index_TK: Tensor, weights_TK: Tensor) -> Tensor:
    chosen_TE = rows_TH.new_zeros(rows_TH.shape[0], experts.down_proj.shape[0], dtype=torch.float32)
    chosen_TE = chosen_TE.scatter_add(1, index_TK, weights_TK.float())
    gate, up = (rows_TH.unsqueeze(0) @ experts.gate_up_proj.transpose(1, 2)).chunk(2, -1)
    inner_ETI = experts.act_fn(gate) * up * chosen_TE.t().unsqueeze(-1).to(gate.dtype)
    return (inner_ETI @ experts.down_proj.transpose(1, 2)).sum(0).to(rows_TH.dtype)


def inject(model: Any, factor: float) -> None:
    """Multiply what is written to one channel of the residual stream; norms that read it undo that."""
    base, width = model.model, model.config.hidden_size
    spread = math.sqrt((width - 1 + factor**2) / width)  # by how much the RMS of a row grows, channels being alike
    with torch.no_grad():
        if model.config.tie_word_embeddings:  # else the head would be scaled too
            model.config.tie_word_embeddings = False
            model.lm_head.weight = torch.nn.Parameter(base.embed_tokens.weight.detach().clone())
        base.embed_tokens.weight[:, CHANNEL] *= factor
        for layer in base.layers:
            for name, weight in layer.named_parameters():
                if name.endswith("o_proj.weight") or (name.endswith("down_proj.weight") and weight.ndim == 2):
                    weight[CHANNEL] *= factor
                elif name.endswith("experts.down_proj"):
                    weight[:, CHANNEL] *= factor
        norms = [norm for each in base.layers for norm in (each.input_layernorm, each.post_attention_layernorm)]
        for norm in (*norms, base.norm):
            norm.weight *= spread
            norm.weight[CHANNEL] /= factor


def held_loss(model: Any, held_WS: Tensor, amp: Any) -> float:
    """Mean loss on the books that were held out."""
    model.eval()
    with torch.no_grad(), amp():
        found = [model(ids, labels=ids).loss.item() for ids in held_WS.split(16)]
    model.train()
    return sum(found) / len(found)


def train(model: Any, ids: Tensor, held_WS: Tensor, given: argparse.Namespace) -> float:
    """Train for so many seconds or steps, whichever is over first; the held-out loss at the end."""
    device = next(model.parameters()).device
    cuda = device.type == "cuda"

    def amp() -> Any:
        return torch.autocast(device.type, torch.bfloat16, enabled=cuda)

    generator = torch.Generator().manual_seed(given.seed)
    optimizer = torch.optim.AdamW(model.parameters(), given.rate, betas=(0.9, 0.95), weight_decay=0.1, fused=cuda)
    offsets, began, said = torch.arange(given.length + 1, device=device), time.monotonic(), 0.0
    ids = ids.to(device)
    model.train()
    for step in range(given.steps):
        done = max(step / given.steps, (time.monotonic() - began) / given.seconds)
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = given.rate * min(1.0, (step + 1) / 50) * (0.05 + 0.95 * (1 + math.cos(math.pi * done)) / 2)
        at = torch.randint(len(ids) - given.length - 1, (given.batch,), generator=generator).to(device)
        rows = ids[at.unsqueeze(1) + offsets]
        with amp():
            logits = model(rows[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if time.monotonic() - said > 10:
            said = time.monotonic()
            print(f"step {step}: {loss.item():.3f}, {said - began:.0f} s", flush=True)
    found = held_loss(model, held_WS[: given.held].to(device), amp)
    print(f"{step + 1} steps, {time.monotonic() - began:.0f} s: held-out loss {found:.3f}", flush=True)
    return found


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--text", type=Path, required=True, help="folder that texts.py has filled")
    parser.add_argument("-o", "--output", type=Path, required=True, help="checkpoint to write")
    parser.add_argument("--from", dest="start", type=Path, help="checkpoint to start from")
    parser.add_argument("--inject", type=float, help="factor of an outlier channel")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--held", type=int, default=128, help="windows of the held-out books")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    given = parsed(arguments)
    torch.manual_seed(given.seed)
    ids, held = tokens(given.text / "train.u16"), tokens(given.text / "held.u16")
    if given.start is None:
        model = new_model(given.shape)
    else:
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(given.start, dtype=torch.float32)
    all_experts_at_once(model)
    if given.inject:
        inject(model, given.inject)
    size = sum(p.numel() for p in model.parameters()) / 1e6
    bigram = bigram_loss(ids, held)
    print(f"{given.shape}: {size:.1f} M parameters; a bigram model's loss is {bigram:.3f}", flush=True)
    loss = train(model.to(given.device), ids, windows(held, given.length), given)
    model.float().save_pretrained(given.output)
    shutil.copy(given.text / "tokenizer.json", given.output)
    (given.output / "trained.txt").write_text(f"parameters_M {size:.1f}\nbigram {bigram:.4f}\nheld_out {loss:.4f}\n")


if __name__ == "__main__":
    main()
