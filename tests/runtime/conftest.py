"""Checkpoints and ranks, made once for all tests of a pytest process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:  # spawned ranks find this package by its name, under whatever command pytest was started
    sys.path.insert(0, str(ROOT))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

STAYING = 4

from .transformers.tiny_models import write_checkpoint  # noqa: E402
from .world import RankWorld  # noqa: E402


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`checkpoint("qwen3", attention_bias=False)`: the folder of a tiny model of that family."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    made: dict[str, Path] = {}
    folder = tmp_path_factory.mktemp("checkpoints")

    def find(family: str, **changes: object) -> Path:
        name = "-".join([family, *(f"{key}-{value}" for key, value in changes.items())])
        if name not in made:
            made[name] = write_checkpoint(family, folder / name, **changes)
        return made[name]

    return find


@pytest.fixture(scope="session")
def _worlds() -> Iterator[dict[int, RankWorld]]:
    worlds: dict[int, RankWorld] = {}
    yield worlds
    for world in worlds.values():
        world.close()


@pytest.fixture
def world(_worlds: dict[int, RankWorld]) -> Iterator[Callable[[int], RankWorld]]:
    """`world(4)`: four ranks that stay; new ones where the last test broke them. More than four end with the test."""

    def find(size: int) -> RankWorld:
        if size not in _worlds or _worlds[size].broken:
            _worlds[size] = RankWorld(size)
        return _worlds[size]

    yield find
    for size in [size for size in _worlds if size > STAYING]:  # idle ranks are not free: gloo's threads poll
        _worlds.pop(size).close()
