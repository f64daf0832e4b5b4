"""A tiny checkpoint and what `commplan rotate` makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from commplan.runtime.rotation.checkpoint import look_through, write_rotated
from commplan.runtime.rotation.hadamard import Rotation


def rotated(checkpoint: Path, folder: Path, block: int | None = None, **options: Any) -> Path:
    """The folder with the checkpoint rotated: whole rows, or in blocks."""
    source = look_through(checkpoint, **options)
    folder.mkdir()
    write_rotated(source, Rotation(source.hidden_size, block or source.hidden_size), folder, lambda *_: None)
    return folder


def model_of(checkpoint: Path) -> Any:
    """As transformers loads it; nothing may be missing, and nothing left over."""
    from transformers import AutoModelForCausalLM

    model, about = AutoModelForCausalLM.from_pretrained(checkpoint, dtype="auto", output_loading_info=True)
    assert not about["missing_keys"] and not about["unexpected_keys"] and not about["mismatched_keys"]
    return model.eval()


def logits_of(model: Any) -> torch.Tensor:
    ids = torch.arange(36).view(3, 12) * 3
    with torch.no_grad():
        found: torch.Tensor = model(ids).logits.float()
    return found
