"""A checkpoint rotated: norms folded into what reads behind them, the stream turned by an orthogonal matrix.

With rows x of the stream and Q orthogonal, every tensor that writes x writes x Q, and every tensor that reads n(x) g
reads n(x Q) through `W diag(g) Q`: the norm of a row is the same, turned, as long as its own weight is ones. Logits are
those of the checkpoint as it was, but for the rounding of the new weights. One tensor is in memory at a time.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import RefusedError
from ..transformers.checkpoint_fit import read_config
from .hadamard import Rotation
from .readers import EMBEDDING, FIRST_NORM, HEAD, LAST_NORM, MARK, SECOND_NORM, Family, check_config, is_draft, place_of
from .safetensors_files import FLOATS, INDEX, Entry, WeightFile, WeightWriter, bytes_of, weight_files

Progress = Callable[[int, int, int], None]
"""(files done, files, bytes written)"""
_DRAFTS = (
    "layers that draft for the model (MTP) read its rows behind the last norm, whose weight is folded away; "
    "--without-mtp leaves them out"
)
# Weights in other forms, which would still be the old ones.
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx", ".npz", ".index.json")


@dataclass(frozen=True)
class Source:
    """A checkpoint that can be rotated: looked through, nothing read but norms.

    tied    its head is its embedding, so the rotated one gets a head of its own
    drafts  names of the tensors that are left out
    """

    folder: Path
    config: dict[str, Any]
    family: Family
    files: list[WeightFile]
    norms: dict[str, Tensor]
    tied: bool
    drafts: frozenset[str]

    @property
    def hidden_size(self) -> int:
        """Columns of the stream."""
        return int(self.config["hidden_size"])

    @property
    def left_out(self) -> list[str]:
        """What lies in the folder and is not copied: folders, and weights in other forms."""
        ours = {file.path.name for file in self.files} | {INDEX}
        names = sorted(path.name for path in self.folder.iterdir() if not _is_copied(path))
        return [name for name in names if name not in ours]


def look_through(checkpoint: str | Path, *, without_mtp: bool = False) -> Source:
    """A checkpoint that can be rotated; raises RefusedError with the reason where it cannot."""
    folder = Path(checkpoint)
    config = read_config(folder)
    path = str(folder / "config.json")
    try:
        family = check_config(config)
        layers, _ = _size(config, "num_hidden_layers"), _size(config, "hidden_size")
        tied = _is_tied(folder)
    except RefusedError as error:
        raise error.in_file(path) from None
    files = weight_files(folder)
    names = {name for file in files for name in file.entries}
    drafts = frozenset(name for name in names if is_draft(name, layers))
    if drafts and not without_mtp:
        raise RefusedError(_DRAFTS, field=min(drafts), file=str(folder))
    _check_complete(folder, names, layers, tied)
    for file in files:
        for name, entry in file.entries.items():
            if name not in drafts:
                _check_tensor(file, name, entry, config, family)
    return Source(folder, config, family, files, _norms(files, family, layers, drafts), tied, drafts)


def write_rotated(source: Source, rotation: Rotation, folder: Path, progress: Progress) -> int:
    """Fill an empty folder with the rotated checkpoint; gives the bytes of its weights."""
    weight_map: dict[str, str] = {}
    written = 0
    for number, file in enumerate(source.files, 1):
        entries = _entries(source, file)
        with (folder / file.path.name).open("wb") as stream, file.opened() as opened:
            writer = WeightWriter(stream, entries, file.notes)
            for name in entries:
                writer.add(name, _rotated(source, rotation, file, opened, name))
            writer.finish()
        weight_map |= dict.fromkeys(entries, file.path.name)
        written += sum(entry.num_elements * bytes_of(entry.dtype) for entry in entries.values())
        progress(number, len(source.files), written)
    if (source.folder / INDEX).is_file():
        _write_json(folder / INDEX, {"metadata": {"total_size": written}, "weight_map": weight_map})
    for path in source.folder.iterdir():
        if _is_copied(path) and path.name != "config.json":
            shutil.copyfile(path, folder / path.name)
    _write_json(folder / "config.json", _config(source, rotation))
    return written


def _config(source: Source, rotation: Rotation) -> dict[str, Any]:
    config = dict(source.config)
    config["tie_word_embeddings"] = False
    if source.drafts:
        config["num_nextn_predict_layers"] = 0
    return config | {MARK: {"block": rotation.block, "seed": rotation.seed}}


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _is_copied(path: Path) -> bool:
    return path.is_file() and not path.name.endswith(_WEIGHTS) and not path.name.startswith(".")


# ---- what there is ---------------------------------------------------------------------------------------------------


def _size(config: dict[str, Any], field: str) -> int:
    value = config.get(field)
    if type(value) is not int or value < 1:
        raise RefusedError("a whole number from 1 is expected", field=field, value=value)
    return value


def _is_tied(folder: Path) -> bool:
    """Whether the head is the embedding, with transformers' default of the model type."""
    from ..transformers.outline import outline_of

    config, _ = outline_of(folder)
    return bool(config.tie_word_embeddings)


def _check_complete(folder: Path, names: set[str], layers: int, tied: bool) -> None:
    needed = [EMBEDDING, LAST_NORM] + ([] if tied else [HEAD])
    needed += [f"model.layers.{n}.{norm}.weight" for n in range(layers) for norm in (FIRST_NORM, SECOND_NORM)]
    if missing := [name for name in needed if name not in names]:
        raise RefusedError(f"has no {missing[0]}; download or save the checkpoint again", file=str(folder))


def _check_tensor(file: WeightFile, name: str, entry: Entry, config: dict[str, Any], family: Family) -> None:
    place = place_of(name, family, config["num_hidden_layers"])
    if place is None:
        reason = f"how {name} meets the residual stream is not known, so the checkpoint cannot be rotated"
        raise RefusedError(reason, file=str(file.path))
    if place.axis is None and not place.ones:
        return
    if entry.dtype not in FLOATS:
        raise RefusedError(f"{', '.join(FLOATS)} are rotated", file=str(file.path), field=name, value=entry.dtype)
    width, axis = config["hidden_size"], place.axis or 0
    fits = entry.shape == (width,) if place.ones else axis < len(entry.shape) and entry.shape[axis] == width
    if not fits:
        reason = f"hidden_size {width} is expected along axis {axis}"
        raise RefusedError(reason, file=str(file.path), field=name, value=str(list(entry.shape)))


def _norms(files: list[WeightFile], family: Family, layers: int, drafts: frozenset[str]) -> dict[str, Tensor]:
    """What every norm of the stream multiplies by, in fp64."""
    found = {}
    for file in files:
        with file.opened() as opened:
            for name in file.entries:
                place = place_of(name, family, layers) if name not in drafts else None
                if place is not None and place.ones:
                    found[name] = opened.get_tensor(name).double() + (1.0 if family.one_plus else 0.0)
    return found


# ---- what is written -------------------------------------------------------------------------------------------------


def _entries(source: Source, file: WeightFile) -> dict[str, Entry]:
    """The tensors of the file that stands for one of the source; a tied head stands behind the embedding."""
    found: dict[str, Entry] = {}
    for name, entry in file.entries.items():
        if name in source.drafts or (source.tied and name == HEAD):
            continue
        found[name] = entry
        if source.tied and name == EMBEDDING:
            found[HEAD] = entry
    return found


def _rotated(source: Source, rotation: Rotation, file: WeightFile, opened: Any, name: str) -> Tensor:
    stored = EMBEDDING if source.tied and name == HEAD else name
    tensor: Tensor = opened.get_tensor(stored)
    place = place_of(name, source.family, source.config["num_hidden_layers"])
    assert place is not None
    if place.ones:
        return torch.zeros_like(tensor) if source.family.one_plus else torch.ones_like(tensor)
    if place.axis is None:
        return tensor
    turned = rotation.fold(tensor, place.axis, source.norms[place.norm] if place.norm else None)
    if not all(bool(part.isfinite().all()) for part in _chunks(turned)):
        reason = "holds what is not finite, or grows beyond its type: a rotation would spread it over whole blocks"
        raise RefusedError(reason, file=str(file.path), field=stored)
    return turned


def _chunks(tensor: Tensor) -> Iterator[Tensor]:
    flat, step = tensor.reshape(-1), 2**24
    return (flat[first : first + step] for first in range(0, flat.numel(), step))
