"""Prints what programs trace with bpf_trace_printk while the packets run, in the lines of the kernel's trace pipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from pktbpf.capture.batch import Batch
from pktbpf.capture.open import Capture
from pktbpf.replayer.session import Judged, Session


class TracePipe:
    """A sink of the session whose programs it listens to."""

    def __init__(self, stream: BinaryIO, session: Session):
        self._stream = stream
        self._session = session

    def begin(self, capture: int, source: Capture) -> None:
        """Nothing to prepare."""

    def take(self, capture: int, batch: Batch, judged: Sequence[Judged]) -> None:
        """Print the lines of this batch: in the order of time where several programs trace."""
        from pktbpf.engine.trace import line

        records = [record for selection in self._session.selections for record in selection.trace_records()]
        if len(self._session.selections) > 1:
            records.sort(key=lambda record: record.time)
        boot = self._session.env.boot_time
        text = "".join(f"{line(record, boot)}\n" for record in records)
        self._stream.write(text.encode("utf-8", "surrogateescape"))
        self._stream.flush()

    def close(self) -> None:
        """Leave nothing in the buffer."""
        self._stream.flush()
