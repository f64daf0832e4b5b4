"""Tiny random checkpoints that SGLang serves on a CPU: those of the runtime's tests, with four layers and a tokenizer.

python -m tests.runtime.servers.sglang.checkpoints qwen3 build/sglang/qwen3
"""

from __future__ import annotations

import json
import string
import sys
from pathlib import Path
from typing import Any

from ...transformers.tiny_models import write_checkpoint

LAYERS = 4
_YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 512,
    "beta_fast": 32,
    "beta_slow": 1,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
}
_COMMON = {"num_hidden_layers": LAYERS, "max_position_embeddings": 2048, "bos_token_id": 0, "eos_token_id": 0}
_DEEPSEEK = {**_COMMON, "rope_parameters": _YARN, "attention_bias": False}
CHANGES: dict[str, dict[str, Any]] = {
    "qwen2": _COMMON,
    "qwen3": {**_COMMON, "attention_bias": False},
    "qwen3_moe": _COMMON,
    "deepseek_v2": {**_DEEPSEEK, "topk_method": "greedy", "n_group": 1},
    "deepseek_v3": _DEEPSEEK,
}
# Fields that SGLang reads and transformers 5 leaves out when it writes a config.json.
_ADDED: dict[str, dict[str, Any]] = {
    "deepseek_v2": {"moe_layer_freq": 1, "scoring_func": "softmax", "topk_method": "greedy"},
    "deepseek_v3": {"moe_layer_freq": 1, "scoring_func": "sigmoid", "topk_method": "noaux_tc"},
}


def make_checkpoint(family: str, folder: str | Path) -> Path:
    """Write weights in fp32, config.json and a tokenizer of single characters."""
    path = write_checkpoint(family, folder, **CHANGES[family]) / "config.json"
    config = json.loads(path.read_text()) | _ADDED.get(family, {})
    path.write_text(json.dumps(config, indent=1))
    _tokenizer().save_pretrained(folder)
    return Path(folder)


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    tokens = ["<|end|>", "<|unknown|>", *string.printable]
    model = models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=[], unk_token="<|unknown|>")
    characters = Tokenizer(model)
    characters.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=characters, eos_token="<|end|>", bos_token="<|end|>", unk_token="<|unknown|>"
    )


if __name__ == "__main__":
    print(make_checkpoint(sys.argv[1], sys.argv[2]))
