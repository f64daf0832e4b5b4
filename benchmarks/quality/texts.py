"""The texts: Python's language reference for a model that is trained, three translations of one book to train on.

    python benchmarks/quality/texts.py FOLDER     # tokenizer and token ids of the latter, 8 MB

Two of its books are held out of all translations: what a small model is measured on.
"""

from __future__ import annotations

import ast
import sys
from array import array
from importlib.metadata import files
from pathlib import Path

VERSIONS = ("kjv", "web", "ylt")
HELD_OUT = (44, 45)  # Acts and Romans
VOCAB_SIZE = 4096


def reference_prose() -> str:
    """The six longest topics of Python's own language reference."""
    from pydoc_data.topics import topics

    return " ".join(topics[key] for key in sorted(topics, key=lambda key: (-len(topics[key]), key))[:6])


def books(version: str) -> dict[int, str]:
    """Text by number of the book, of a translation that a package carries."""
    package, name = f"pythonbible-{version}", "plain_text_readers_bible.py"
    found = next(path for path in files(package) or () if path.name == name).locate()
    call = next(n for n in ast.walk(ast.parse(Path(str(found)).read_text())) if isinstance(n, ast.Call))
    text, starts = ast.literal_eval(call.args[1]), ast.literal_eval(call.args[2])
    first: dict[int, int] = {}
    for verse, start in starts.items():
        first.setdefault(verse // 1_000_000, start)
    ends = [*sorted(first.values())[1:], len(text)]
    return {book: text[start:end].strip() for (book, start), end in zip(sorted(first.items()), ends, strict=True)}


def prepare(folder: Path) -> None:
    """Write tokenizer.json, train.u16 and held.u16: token ids of two bytes each."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    folder.mkdir(parents=True, exist_ok=True)
    found = [books(version) for version in VERSIONS]
    train = "\n\n".join(text for each in found for book, text in each.items() if book not in HELD_OUT)
    held = "\n\n".join(found[1][book] for book in HELD_OUT)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB_SIZE, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(train.split("\n\n"), trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, text in (("train", train), ("held", held)):
        ids = array("H", tokenizer.encode(text).ids)
        (folder / f"{name}.u16").write_bytes(ids.tobytes())
        print(f"{name}: {len(text):,} characters, {len(ids):,} tokens")


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
