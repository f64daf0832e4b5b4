"""A tokenizer of single characters for tiny checkpoints, and a text."""

from __future__ import annotations

import string
from pathlib import Path

TEXT = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness. " * 4
)


def add_tokenizer(checkpoint: Path) -> Path:
    """The checkpoint, with a token for every printable character."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {character: index for index, character in enumerate(["?", *string.printable[:95]])}
    tokenizer = Tokenizer(models.WordLevel({**vocabulary}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?").save_pretrained(checkpoint)
    return checkpoint
