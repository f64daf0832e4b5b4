"""The user's text as token ids, in windows of equal length."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from commplan.planner.strategy.file import InputError
from commplan.planner.strategy.files import read_text

from ..errors import RefusedError


def token_windows(
    checkpoint: str, file: str, window: int, tokens: int, option: str = "--window"
) -> tuple[list[list[int]], str]:
    """(windows of token ids, hash of what was read); at most `tokens`. RefusedError where it is too short."""
    from ..transformers.generation import load_tokenizer

    try:
        text = read_text(file)
    except InputError as error:
        raise RefusedError(error.message, file=file, field="--text") from None
    if not text.strip():
        raise RefusedError("is empty; the text that the model is measured on is expected", file=file, field="--text")
    try:
        tokenizer: Any = load_tokenizer(checkpoint)
    except RefusedError as error:
        raise RefusedError("has no tokenizer, so a text is no tokens to it", file=checkpoint, field="--text") from error
    ids: list[int] = tokenizer(text, verbose=False)["input_ids"]
    count = min(len(ids), tokens) // window
    if count < 1:
        why = f"the text is {len(ids)} tokens, and a window is {window}: give a longer one, or {option} of less"
        raise RefusedError(why, file=file, field=option, value=window)
    digest = hashlib.sha256(repr(ids[: count * window]).encode()).hexdigest()[:16]
    return [ids[at * window : (at + 1) * window] for at in range(count)], digest


def is_checkpoint(folder: str) -> None:
    """Raises RefusedError unless a folder holds weights beside its config.json."""
    if not any(Path(folder).glob("*.safetensors")) and not any(Path(folder).glob("*.bin")):
        raise RefusedError(
            "holds no weights (*.safetensors); a Hugging Face checkpoint directory is expected", file=folder
        )
