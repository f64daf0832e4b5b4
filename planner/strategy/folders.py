"""A folder that is written whole or not at all, and over nothing that nobody asked to replace."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError, OverwriteError
from .files import signals_wait, umask


def check_new_folder(path: str | Path, option: str, *, apart_from: str | Path, replaces: str | None = None) -> None:
    """Raise where a folder cannot be written, before any work is done.

    apart_from  a folder that is read: neither it nor one within or around it
    replaces    a file by which a folder that is there may be replaced; None: none may
    """
    target, read = Path(os.path.realpath(path)), Path(os.path.realpath(apart_from))
    if target == read or target in read.parents or read in target.parents:
        reason = f"is, holds or lies in {apart_from}, which this command reads; name another folder"
        raise OverwriteError(reason, file=str(path), field=option, value=str(path))
    if os.path.lexists(path):
        _check_replaced(path, target, option, replaces)
    elif not target.parent.is_dir():
        raise InputError("its folder does not exist", file=str(path), field=option, kind="unwritable")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise InputError("its folder lets nothing be made", file=str(path), field=option, kind="unwritable")


def _check_replaced(path: str | Path, target: Path, option: str, replaces: str | None) -> None:
    if not target.is_dir() or os.path.islink(path):
        raise InputError("exists and is no folder", file=str(path), field=option, kind="unwritable")
    if not any(target.iterdir()):
        return
    if replaces is None:
        raise OverwriteError("exists already; name another folder, or give --force", file=str(path), field=option)
    if not (target / replaces).is_file():
        reason = f"holds no {replaces}, so --force does not replace it; name another folder"
        raise OverwriteError(reason, file=str(path), field=option)


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside `path` to fill; it takes that name, and the place of what has it, when the block ends.

    A block that fails or is broken off by a signal leaves nothing of it, and what was there as it was.
    """
    target = Path(os.path.realpath(path))
    temporary: Path | None = None
    with signals_wait() as signals:
        try:
            temporary = Path(tempfile.mkdtemp(prefix=".commplan.", dir=target.parent))
            with signals.let_through():
                yield temporary
            os.chmod(temporary, 0o777 & ~umask())
            _take_place(temporary, target)
            temporary = None
        except OSError as error:
            reason = f"cannot be written: {error.strerror or error}"
            raise InputError(reason, file=str(path), kind="unwritable") from None
        finally:
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)


def _take_place(temporary: Path, target: Path) -> None:
    if not target.exists():
        os.rename(temporary, target)
        return
    aside = Path(tempfile.mkdtemp(prefix=".commplan.", dir=target.parent))
    os.rename(target, aside / target.name)
    try:
        os.rename(temporary, target)
    except OSError:
        os.rename(aside / target.name, target)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
