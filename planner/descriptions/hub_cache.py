"""Models in the cache that Hugging Face's libraries keep on this machine. Nothing is ever fetched.

A model `ORG/NAME` lies in `models--ORG--NAME`: refs/main names the revision that was fetched last, and snapshots/ holds
the files of each.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..strategy.errors import InputError, did_you_mean
from ..strategy.files import read_text

CONFIG = "config.json"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*\Z", re.ASCII)
_REVISION = re.compile(r"[\w-]+\Z", re.ASCII)
_FOLDER = "models--"


def is_hub_name(text: str) -> bool:
    """True for `ORG/NAME`, as models are called on the Hub."""
    return _NAME.match(text) is not None


def cache_folder() -> Path:
    """Where the cache is, by the variables that Hugging Face's libraries go by."""
    for variable, below in (("HF_HUB_CACHE", ""), ("HF_HOME", "hub"), ("XDG_CACHE_HOME", "huggingface/hub")):
        if given := os.environ.get(variable):
            return Path(given).expanduser() / below
    return Path("~/.cache/huggingface/hub").expanduser()


def cached_config(name: str, field: str, beside: str | None) -> Path | None:
    """The config.json of a model in the cache, or None where the cache has no such model.

    Raises InputError for one that is there without a config.json, or with several of which none is marked.
    """
    folder = cache_folder() / f"{_FOLDER}{name.replace('/', '--')}"
    if not folder.is_dir():
        return None
    marked = folder / "refs" / "main"
    if marked.is_file() and _REVISION.match(revision := read_text(marked).strip()):
        found = [folder / "snapshots" / revision / CONFIG]
    else:
        found = sorted((folder / "snapshots").glob(f"*/{CONFIG}"))
    found = [path for path in found if path.is_file()]
    if len(found) == 1:
        return found[0]
    reason = f"{folder} holds {'several revisions and marks none' if found else 'no config.json'}"
    raise InputError(f"{reason}; give the path of a config.json", file=beside, field=field, value=name)


def not_cached(name: str, presets: tuple[str, ...]) -> str:
    """What is said of a name of the Hub that the cache has not: how to get there."""
    known = [path.name.removeprefix(_FOLDER).replace("--", "/", 1) for path in sorted(cache_folder().glob("models--*"))]
    mine = name.partition("/")[2].lower()
    ways = [f"give the path of its config.json (`hf download {name} {CONFIG}` fetches it)"]
    if mine in presets:
        ways.insert(0, f"take the preset {mine}")
    elif close := [other for other in known if other.lower() == name.lower()]:
        ways.insert(0, did_you_mean(name, close).removesuffix("?"))
    return (
        f"neither a file nor a model in the Hugging Face cache ({cache_folder()}), and nothing is fetched: "
        + ", or ".join(ways)
    )


def hub_name(path: Path) -> str | None:
    """`ORG/NAME` of a file in a cache, or None where it lies elsewhere."""
    *_, model, snapshots, _revision, _file = ("", "", "", "", *path.parts)
    if snapshots != "snapshots" or not model.startswith(_FOLDER):
        return None
    return model.removeprefix(_FOLDER).replace("--", "/", 1)
