"""The live trace pipe with the lines of bpf_trace_printk, in a trace instance of its own, which has nobody else's."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path
from types import TracebackType

from pktbpf.errors import KernelUnavailable
from pktbpf.kernel import syscall

_DETACH = 2


class TracePipe:
    """A context manager. place: an empty directory where tracefs is mounted meanwhile. Raises KernelUnavailable."""

    def __init__(self, place: Path):
        self.place = place
        self.instance = place / "instances" / f"pktbpf-{os.getpid()}"

    def __enter__(self) -> TracePipe:
        libc = syscall.libc()
        if libc.mount(b"none", os.fsencode(self.place), b"tracefs", ctypes.c_ulong(0), None):
            raise KernelUnavailable(ctypes.get_errno(), "mounting tracefs")
        try:
            self.instance.mkdir()
            (self.instance / "events/bpf_trace/bpf_trace_printk/enable").write_text("1")
            self._pipe = os.open(self.instance / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            self._unmount()
            raise KernelUnavailable(error.errno or 0, "a trace instance") from None
        return self

    def text(self) -> str:
        """What has been written since the last call."""
        out = b""
        while True:
            try:
                part = os.read(self._pipe, 1 << 16)
            except BlockingIOError:
                return out.decode(errors="surrogateescape")
            out += part

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._pipe)
        self._unmount()

    def _unmount(self) -> None:
        for _ in range(50):  # the pipe lets go of the instance a little later
            try:
                if self.instance.exists():
                    self.instance.rmdir()
                break
            except OSError:
                time.sleep(0.02)
        syscall.libc().umount2(os.fsencode(self.place), _DETACH)
