"""The capture file of accepted packets: opened when the first input is, so that it has its link type and precision."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pktbpf.capture.batch import Batch
from pktbpf.capture.open import Capture
from pktbpf.capture.writer import Writer, open_writer
from pktbpf.errors import UsageError
from pktbpf.replayer.session import Judged


class WriterSink:
    """Writes packets that any filter accepts, cut to the longest of what the accepting filters keep.

    target: a path, `-`, or a binary file. sources: all captures that will be read; UsageError when the target is one of
    them. Link type, time precision and snapshot length are those of the first capture; a pcapng file describes the
    interfaces of all. Nothing is created when no capture can be opened.
    """

    def __init__(self, target: str | os.PathLike[str] | BinaryIO, sources: Iterable[Any]):
        for source in sources:
            if _same_file(target, source):
                raise UsageError(f"{os.fspath(source)} is read and cannot be written at the same time")
        self._target = target
        self._first: Capture | None = None
        self._writer: Writer | None = None

    def begin(self, capture: int, source: Capture) -> None:
        """Remember the first input, and open the output as soon as its link type is known."""
        if self._first is None:
            self._first = source
            if source.interfaces:
                self._open()

    def take(self, capture: int, batch: Batch, judged: Sequence[Judged]) -> None:
        """Write the accepted packets of the batch."""
        accepted, saved = judged[0].accepted, judged[0].saved
        for other in judged[1:]:
            accepted = accepted | other.accepted
            saved = np.maximum(saved, other.saved)
        rows = np.flatnonzero(accepted)
        self._open().write(batch, rows, saved[rows])

    def close(self) -> None:
        """Complete the file; one without packets has its header."""
        if self._first is not None:
            self._open().close()

    def _open(self) -> Writer:
        if self._writer is None:
            assert self._first is not None
            first = self._first
            self._writer = open_writer(
                self._target, linktype=None if first.interfaces else 1, interfaces=first.interfaces,
                nanosecond=first.nanosecond, class_bits=first.class_bits,
            )  # fmt: skip
        return self._writer


def _same_file(target: Any, source: Any) -> bool:
    if not (isinstance(target, str | os.PathLike) and isinstance(source, str | os.PathLike)):
        return False
    try:
        return Path(target).samefile(source)
    except (OSError, ValueError):  # one of them is no file
        return False
