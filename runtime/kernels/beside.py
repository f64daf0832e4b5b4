"""A stream beside the one that the caller is on. On a CPU, without streams, all is done in the order of issue."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


class Beside:
    """A stream beside the one of now, which goes before others: it has copies and little else, and is waited for."""

    def __init__(self, device: torch.device) -> None:
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device, priority=-1)  # type: ignore[no-untyped-call]

    def follow(self, other: Beside | None = None) -> None:
        """What comes in here waits for what the stream of now, or another one, has been given."""
        if self._stream is not None:
            awaited = None if other is None else other._stream
            self._stream.wait_stream(awaited or torch.cuda.current_stream())

    def here(self) -> AbstractContextManager[Any]:
        """What is given in here goes to the stream beside."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def is_captured(self) -> bool:
        """Is what the stream of now is given captured into a graph?"""
        return self._stream is not None and torch.cuda.is_current_stream_capturing()

    def mark(self) -> Mark:
        """All that has been given here up to now."""
        return Mark(None if self._stream is None else self._stream.record_event())

    def join(self) -> None:
        """The stream of now waits for all that was given here."""
        if self._stream is not None:
            torch.cuda.current_stream().wait_stream(self._stream)


class Mark:
    """A place in a stream beside."""

    def __init__(self, event: torch.cuda.Event | None) -> None:
        self._event = event

    def wait(self) -> None:
        """The stream of now waits for what was given before the mark."""
        if self._event is not None:
            torch.cuda.current_stream().wait_event(self._event)


__all__ = ["Beside", "Mark"]
