"""Files as they are read and written: a command overwrites nothing that it reads, and a write is whole or not at all.

While a command runs, readers note which files they read and options name what will be written. Whoever comes second,
the reader or the writer, finds that both are one file, under whatever name, and nothing is written.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from .errors import InputError, OverwriteError

MAX_FILE_BYTES = 8 * 1024 * 1024
STANDARD_OUTPUT = "standard output"
_DASH = "-"  # as a file to write: standard output
_LONGEST_NAME = 240  # bytes that file systems take, less the endings of files on the way
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


# ---- what a command reads and will write -----------------------------------------------------------------------------


@dataclass
class _Command:
    """Files that were read, targets by the option that names each, and the option that has standard output."""

    read: list[tuple[str, os.stat_result]] = field(default_factory=list)
    targets: list[tuple[str, str]] = field(default_factory=list)
    printing: str | None = None
    printed: bool = False  # a file goes there, and nothing else

    def note(self, path: str, found: os.stat_result) -> None:
        if not any(os.path.samestat(found, known) for _, known in self.read):
            self.read.append((path, found))

    def check(self) -> None:
        for option, target in self.targets:
            self.check_target(target, option)

    def check_target(self, target: str, option: str | None) -> None:
        there = _stat(target)
        for path, found in self.read:
            if there is not None and os.path.samestat(there, found):
                raise OverwriteError(_is_read(target, path), file=target, field=option, value=target)

    def take_standard_output(self, option: str, is_file: bool) -> None:
        if self.printing is not None:
            message = f"goes to standard output, as {self.printing} does; name a file"
            raise InputError(message, kind="usage", field=option)
        self.printing, self.printed = option, is_file

    def check_apart(self, target: str, option: str) -> None:
        for other_option, other in self.targets:
            if _same(target, other):
                message = f"is the file that {other_option} writes; name another one"
                raise OverwriteError(message, file=target, field=option, value=target)


_running: list[_Command] = []  # the last is asked; none outside of a command: a Python caller names what it overwrites


@contextmanager
def one_command() -> Iterator[None]:
    """What is read inside is overwritten by nothing inside."""
    _running.append(_Command())
    try:
        yield
    finally:
        _running.pop()


def is_command() -> bool:
    """True while a command runs, and false where Python code asks for itself."""
    return bool(_running)


def note_read(path: str | Path) -> None:
    """This file is read, by whatever reads it; raises OverwriteError where the command is to write it."""
    if _running and (found := _stat(path)) is not None:
        _running[-1].note(str(path), found)
        _running[-1].check()


def goes_on_with(path: str | Path) -> None:
    """What this command has read here it left itself, when it was interrupted: it may write it anew."""
    if _running and (found := _stat(path)) is not None:
        kept = [each for each in _running[-1].read if not os.path.samestat(each[1], found)]
        _running[-1].read[:] = kept


def forget(path: str | Path) -> None:
    """Remove a file that was kept for going on, where there is one."""
    Path(path).unlink(missing_ok=True)


def prints_json(option: str) -> None:
    """Standard output is for the JSON of this option: no file can go there."""
    if _running:
        _running[-1].take_standard_output(option, is_file=False)


def is_standard_output(path: str | Path) -> bool:
    """True where a command prints what it would write to a file: its user named `-`."""
    return bool(_running) and _running[-1].printed and str(path) == _DASH


def prints_a_file() -> bool:
    """True where standard output is for a file alone, so that whatever else is said goes to standard error."""
    return bool(_running) and _running[-1].printed


def shown(path: str | Path) -> str:
    """A written file as a command names it."""
    return STANDARD_OUTPUT if is_standard_output(path) else str(path)


def name_target(path: str | Path, option: str) -> None:
    """This file will be written, as an option says; refused at once where it was read or cannot be written."""
    if _running and str(path) == _DASH:
        _running[-1].take_standard_output(option, is_file=True)
        return
    if _running:
        _running[-1].check_target(str(path), option)
        _running[-1].check_apart(str(path), option)
        _running[-1].targets.append((option, str(path)))
    _check_writable(path, option)


def _is_read(target: str, path: str) -> str:
    same = "" if target == path else f", as {path}"
    return f"is read by this command{same}, and would be overwritten; name another file"


def _stat(path: str | Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (OSError, ValueError):  # whoever opens it will say so
        return None


def _same(one: str, other: str) -> bool:
    a, b = _stat(one), _stat(other)
    if a is not None and b is not None:
        return os.path.samestat(a, b)
    return os.path.realpath(one) == os.path.realpath(other)


# ---- reading ---------------------------------------------------------------------------------------------------------


def read_text(path: str | Path) -> str:
    """The file as text; refuses what is missing, no file, too large or not UTF-8."""
    try:
        if not Path(path).is_file():
            raise InputError(why_no_file(path), file=str(path))
        note_read(path)
        size = os.path.getsize(path)
        if size <= MAX_FILE_BYTES:
            with open(path, "rb") as stream:
                data = stream.read(MAX_FILE_BYTES + 1)  # it may grow meanwhile
            size = len(data)
        if size > MAX_FILE_BYTES:
            raise InputError(
                f"the file has {size} bytes; at most {MAX_FILE_BYTES} are read", file=str(path), kind="too_large"
            )
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text: {error.reason} at byte {error.start}", file=str(path)) from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {error}", file=str(path)) from None


IS_A_FOLDER = "is a directory"


def why_no_file(path: str | Path) -> str:
    """What a path is that is no regular file."""
    if Path(path).is_dir():
        return IS_A_FOLDER
    return "is not a regular file" if Path(path).exists() else "no such file"


# ---- writing ---------------------------------------------------------------------------------------------------------


def write_text_atomically(path: str | Path, text: str) -> None:
    """Write to a temporary file beside `path`, then rename: an existing file is replaced whole or left as it was.

    A signal that ends the process ends the writing first, and leaves nothing of it. What a user names `-` is printed.
    """
    if is_standard_output(path):
        _print(text)
        return
    if _running:
        _running[-1].check_target(str(path), None)
        _running[-1].check()  # of all targets before the first is written
    _check_writable(path)
    target = Path(os.path.realpath(path))  # a link keeps pointing to what it points to
    temporary: str | None = None
    with signals_wait() as signals:
        try:
            mode = target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~umask()
            handle, temporary = tempfile.mkstemp(prefix=".commplan.", dir=target.parent)
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream, signals.let_through():
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary, mode)
            os.replace(temporary, target)
            temporary = None
        except (OSError, ValueError) as error:
            raise _unwritable(path, error) from None
        finally:
            if temporary is not None:
                os.unlink(temporary)


def _print(text: str) -> None:
    """A file on standard output, in UTF-8 as on disk."""
    try:
        stream = getattr(sys.stdout, "buffer", None)
        if stream is None:
            sys.stdout.write(text)
        else:
            stream.write(text.encode())
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise unprintable(error) from None


def unprintable(error: OSError) -> InputError:
    """The error of what standard output does not take. What is left in its buffer goes nowhere: Python would fail to
    write it once more at exit."""
    _give_up(sys.stdout)
    return InputError(f"cannot be written: {error.strerror}", file=STANDARD_OUTPUT, kind="unwritable")


def _give_up(stream: Any) -> None:
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):  # a stream without a file behind it
        return


def _check_writable(path: str | Path, option: str | None = None) -> None:
    """Raise InputError where it can be seen at once that a path cannot be written."""
    target = Path(os.path.realpath(path))
    if str(path).endswith(os.sep) and not target.is_dir():  # resolved, it would be a file of that name
        raise InputError("is no folder, and names one", file=str(path), field=option, kind="unwritable")
    try:
        if os.path.islink(target):  # resolved, none is left
            raise InputError("is a link to itself", file=str(path), field=option, kind="unwritable")
        if target.exists():
            if not target.is_file():
                raise InputError(why_no_file(path), file=str(path), field=option, kind="unwritable")
            if not os.access(target, os.W_OK):
                raise InputError("is not writable", file=str(path), field=option, kind="unwritable")
            if _is_printed_to(target):
                reason = "is where this command prints, and what it prints would be lost"
                raise InputError(f"{reason}; name another file", file=str(path), field=option, kind="unwritable")
        else:
            os.stat(f"{target.parent}/")
            if len(os.fsencode(target.name)) > _LONGEST_NAME:
                reason = f"the name is longer than {_LONGEST_NAME} bytes"
                raise InputError(reason, file=str(path), field=option, kind="unwritable")
    except (OSError, ValueError) as error:
        raise _unwritable(path, error, option) from None
    if not target.exists() and not os.access(target.parent, os.W_OK | os.X_OK):
        raise InputError("its folder lets no file be made", file=str(path), field=option, kind="unwritable")


def _is_printed_to(target: Path) -> bool:
    """Whether standard output or standard error goes to this file, as /dev/stdout says of it."""
    found = target.stat()
    for number in (1, 2):
        try:
            if os.path.samestat(found, os.fstat(number)):
                return True
        except OSError:  # it is closed
            continue
    return False


def _unwritable(path: str | Path, error: Exception, option: str | None = None) -> InputError:
    reason = getattr(error, "strerror", None) or error
    return InputError(f"cannot be written: {reason}", file=str(path), field=option, kind="unwritable")


def umask() -> int:
    """Of this process; asking for it means setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


class _Ended(KeyboardInterrupt):
    """A signal came while a temporary file was being filled."""


class _Signals:
    """Handler of the signals that end a process: it raises where it may, at most once, and remembers the first."""

    def __init__(self) -> None:
        self.first: int | None = None
        self._raises = False

    def __call__(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.first is None:
            self.first = number
            if self._raises:
                raise _Ended

    @contextmanager
    def let_through(self) -> Iterator[None]:
        """A block that a signal may break off; one that came before or meanwhile has done so at its end."""
        self._raises = True
        try:
            yield
        finally:
            self._raises = False
        if self.first is not None:
            raise _Ended


@contextmanager
def signals_wait() -> Iterator[_Signals]:
    """Signals act when the block is left, as they would have; inside they break off what `let_through` names."""
    signals, before = _Signals(), {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in _ENDING:
                handler = signal.getsignal(number)
                if handler not in (None, signal.SIG_IGN):
                    before[number] = handler
                    signal.signal(number, signals)
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if signals.first is not None:
            signal.raise_signal(signals.first)
