"""Where capture bytes come from: a path, standard input, a file object or bytes, as one minimal byte stream.

`open_stream(source)` gives a ByteStream: `readinto(view)` fills as much as is at hand and returns 0 at the end only,
`position` counts consumed bytes (of the compressed input, for progress), `size` is the total or None.
Errors of the operating system become CaptureError.
"""

from __future__ import annotations

import io
import os
import stat
import sys
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeAlias

from pktbpf.errors import CaptureError

Source: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO"


class ByteStream(Protocol):
    """Bytes in order. readinto returns the count, 0 only at the end; `name` is what errors call the source."""

    name: str
    size: int | None

    @property
    def position(self) -> int:
        """Bytes consumed of the underlying (perhaps compressed) input."""
        ...

    def readinto(self, view: memoryview) -> int:
        """Fill the front of `view`; the count of bytes, 0 at the end of the input."""
        ...

    def close(self) -> None:
        """Give back what was opened here; a file object of the caller stays open."""
        ...


class FileStream:
    """Any binary file object. Unbuffered where it can be: the window of the reader is the only buffer."""

    def __init__(
        self, file: Any, name: str, *, size: int | None = None, owned: bool = False, origin: Source | None = None
    ):
        self.name = name
        self.size = size
        self.position = 0
        self._file = file
        self._owned = owned
        self._origin = origin
        # Of a buffered reader only read1 gives what is at hand; readinto1 goes on to a read that may block on a pipe.
        self._some = getattr(file, "read1", None) or getattr(file, "read", None)
        buffered = hasattr(file, "read1") or not hasattr(file, "readinto")
        self._read = self._copy_in if buffered else file.readinto

    def _copy_in(self, view: memoryview) -> int | None:
        data = self._some(len(view)) if self._some else None
        if data is None:
            return None
        if not isinstance(data, bytes | bytearray | memoryview):
            raise CaptureError("the file object gives text; open it in binary mode", path=self.name)
        view[: len(data)] = data
        return len(data)

    def readinto(self, view: memoryview) -> int:
        """Fill the front of `view`."""
        try:
            count = self._read(view)
        except OSError as error:
            raise CaptureError(error.strerror or str(error), path=self.name, offset=self.position) from error
        if count is None:
            raise CaptureError("no data at hand on a non-blocking file", path=self.name, offset=self.position)
        self.position += count
        return int(count)

    def reopen(self) -> FileStream | None:
        """The same bytes from the start once more, None when they can be read only once."""
        return None if self._origin is None else open_stream(self._origin)

    def close(self) -> None:
        """Close the file if it was opened here."""
        if self._owned:
            self._file.close()


class HeadStream:
    """A file stream with bytes pushed back in front of it, after its format was sniffed."""

    def __init__(self, head: bytes, rest: FileStream):
        self.name = rest.name
        self.size = rest.size
        self._head = memoryview(head)
        self._rest = rest

    @property
    def position(self) -> int:
        """Bytes consumed, those pushed back not counted."""
        return self._rest.position - len(self._head)

    def readinto(self, view: memoryview) -> int:
        """Fill from the pushed-back bytes first."""
        if not len(self._head):
            return self._rest.readinto(view)
        count = min(len(view), len(self._head))
        view[:count] = self._head[:count]
        self._head = self._head[count:]
        return count

    def reopen(self) -> FileStream | None:
        """The same bytes from the start once more, None when they can be read only once."""
        return self._rest.reopen()

    def close(self) -> None:
        """Close what is below."""
        self._rest.close()


def open_stream(source: Source) -> FileStream:
    """The raw bytes of a source; CaptureError when it is missing, a directory or unreadable."""
    if isinstance(source, bytes | bytearray | memoryview):
        return FileStream(io.BytesIO(source), "<bytes>", size=len(source), owned=True, origin=source)
    if isinstance(source, str | os.PathLike):
        return _standard_input() if source == "-" else _open_path(Path(source))
    name = getattr(source, "name", None)
    if not (hasattr(source, "read") or hasattr(source, "readinto")):
        raise CaptureError(f"cannot read a capture from {type(source).__name__}; give a path, bytes or a binary file")
    return FileStream(source, name if isinstance(name, str) else f"<{type(source).__name__}>")


def _open_path(path: Path) -> FileStream:
    name = str(path)
    try:
        file = path.open("rb", buffering=0)
    except ValueError as error:
        raise CaptureError(f"not a file name: {error}", path=ascii(name)) from error
    except OSError as error:
        raise CaptureError(error.strerror or str(error), path=name) from error
    status = os.fstat(file.fileno())
    regular = stat.S_ISREG(status.st_mode)
    return FileStream(
        file, name, size=status.st_size if regular else None, owned=True, origin=path if regular else None
    )


def _standard_input() -> FileStream:
    if sys.stdin is None:
        raise CaptureError("standard input is closed", path="-")
    buffer = getattr(sys.stdin, "buffer", sys.stdin)
    status = None
    try:
        status = os.fstat(buffer.fileno())
    except (OSError, AttributeError, io.UnsupportedOperation):
        status = None  # standard input may be replaced by an object without a descriptor
    regular = status is not None and stat.S_ISREG(status.st_mode)
    raw = getattr(buffer, "raw", buffer)
    return FileStream(raw, "-", size=status.st_size if status and regular else None)
