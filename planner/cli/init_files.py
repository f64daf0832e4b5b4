"""Names of files that `commplan init` writes: none that is there is replaced unasked."""

from __future__ import annotations

import os
import re

from ..strategy.errors import InputError
from ..strategy.files import is_standard_output, name_target

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*\Z")


def file_name(text: str) -> str:
    """A name that a file can have; raises InputError for another, and for a preset's, which would be found first."""
    from ..descriptions.loader import preset_names

    if _NAME.match(text) is None:
        raise InputError("letters, digits and . _ + - are expected", kind="usage", field="--name", value=text)
    for folder in ("hardware", "deployments"):
        if text in preset_names(folder):
            reason = "is the name of a preset, and that would be found first; take another"
            raise InputError(reason, kind="usage", field="--name", value=text)
    return text


def target(output: str | None, default: str, force: bool) -> str:
    """The file to write; raises InputError where there is one that nobody said to replace."""
    path = default if output is None else output
    if is_standard_output(path):
        return path
    if output is None:
        name_target(path, "--output")
    if os.path.lexists(path) and not force:
        reason = "is there already; --force replaces it, -o names another file"
        raise InputError(reason, kind="exists", file=path, field="--output")
    return path
