"""The one error family of pktbpf. Each class carries data, a one-line message and the exit code of the command line.

    PktbpfError                  1   anything pktbpf itself reports
    ├── UsageError               2   arguments that contradict each other or the input
    ├── FilterSyntaxError        1   a filter's text or bytes cannot be read   (source, line, column, reason)
    ├── ExpressionError          1   libpcap refused an expression             (its text, unchanged)
    ├── ObjectError              1   an ELF object cannot be used              (path, section, reason)
    ├── CaptureError             1   a damaged or unreadable capture           (path, offset, reason)
    ├── LinkTypeError            1   a link type that the filter or profile cannot serve
    ├── MapError                 1   a wrong use of a map; also an OSError with the kernel's errno
    ├── ProgramRefused           3   the checks refuse the program             (errno, insn, reason, hint, log)
    ├── CheckFailed              3   a comparison or threshold that did not hold
    └── KernelUnavailable        1   the live kernel cannot be asked here      (errno, what)

Faults while packets run are columns of the outcome (`pktbpf.engine.base.Fault`), never exceptions.
"""

from __future__ import annotations

import errno as _errno
import os
from typing import Any

__all__ = [
    "CaptureError",
    "CheckFailed",
    "ExpressionError",
    "FilterSyntaxError",
    "KernelUnavailable",
    "LinkTypeError",
    "MapError",
    "ObjectError",
    "PktbpfError",
    "ProgramRefused",
    "UsageError",
]


class PktbpfError(Exception):
    """Base of everything pktbpf raises on purpose; `str()` is one line, `exit_code` what the command line ends with.

    results: what a replay had found before the error (`pktbpf.Results`), None elsewhere.
    """

    exit_code = 1
    results: Any = None

    def __init__(self, *arguments: object):
        super().__init__(*(printable(one) if isinstance(one, str) else one for one in arguments))


class UsageError(PktbpfError):
    """Arguments that contradict each other or the input (`-y` against the file's link type, an unknown profile)."""

    exit_code = 2


class FilterSyntaxError(PktbpfError, ValueError):
    """A filter's text or bytes cannot be read; also a ValueError. `line` and `column` count from 1; None where they
    mean nothing."""

    def __init__(self, reason: str, *, source: str | None = None, line: int | None = None, column: int | None = None):
        self.reason = reason
        self.source = source
        self.line = line
        self.column = column
        place = source or "filter"
        if line is not None:
            place += f":{line}" + (f":{column}" if column is not None else "")
        super().__init__(f"{place}: {reason}")


class ExpressionError(PktbpfError):
    """libpcap refused a pcap-filter expression; the message is libpcap's own, behind the name of its file if any."""


class ObjectError(PktbpfError):
    """An ELF object cannot be used as it is; says which section or symbol and why."""

    def __init__(self, reason: str, *, path: str | None = None, section: str | None = None):
        self.reason = reason
        self.path = path
        self.section = section
        place = ": ".join(part for part in (path, section) if part)
        super().__init__(f"{place}: {reason}" if place else reason)


class CaptureError(PktbpfError):
    """A capture is damaged or cannot be read. `offset` is in bytes into the (decompressed) stream, None if unknown."""

    def __init__(self, reason: str, *, path: str | None = None, offset: int | None = None):
        self.reason = reason
        self.path = path
        self.offset = offset
        place = path or "capture"
        if offset is not None:
            place += f": offset {offset}"
        super().__init__(f"{place}: {reason}")


class LinkTypeError(PktbpfError):
    """A link type that is unknown, or that a filter or an attach profile cannot serve."""


class MapError(PktbpfError, OSError):
    """A wrong use of a map, with the errno the kernel's bpf(2) gives for it."""

    def __init__(self, errno: int, reason: str):
        OSError.__init__(self, errno, printable(reason))
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason} ({errno_name(self.errno or 0)})"


class ProgramRefused(PktbpfError):
    """The kernel's checks refuse the program.

    errno: what the system call would give. insn: number of the refusing instruction, or None for the whole program.
    reason: one line. hint: what to do about it. log: the verifier's log where there is one.
    """

    exit_code = 3

    def __init__(self, errno: int, insn: int | None, reason: str, *, hint: str = "", log: str = ""):
        self.errno = errno
        self.insn = insn
        self.reason = reason
        self.hint = hint
        self.log = log
        place = f"instruction {insn}: " if insn is not None else ""
        tail = f"; {hint}" if hint else ""
        super().__init__(f"{place}{reason} ({errno_name(errno)}){tail}")


class CheckFailed(PktbpfError):
    """A comparison that did not hold: parity with the kernel, a coverage threshold, an expected verdict."""

    exit_code = 3


class KernelUnavailable(PktbpfError):
    """The live kernel cannot be asked here (not Linux, no permission, missing device); `errno` says how it refused."""

    def __init__(self, errno: int, what: str):
        self.errno = errno
        self.what = what
        super().__init__(f"{what}: {os.strerror(errno)} ({errno_name(errno)})")


def printable(text: str) -> str:
    """A text that any stream can take: bytes of a file name that are not UTF-8 become escapes (`\\xff`)."""
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte
        raw = text.encode("utf-8", "backslashreplace")
    return raw.decode("utf-8", "backslashreplace")


def errno_name(number: int) -> str:
    """The symbolic name of an errno (`EINVAL`), or `errno N`. 524 is ENOTSUPP, which user space has no name for."""
    return "ENOTSUPP" if number == 524 else _errno.errorcode.get(number, f"errno {number}")
