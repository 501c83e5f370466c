"""Compressed input by content: gzip, bzip2, xz, zstd and lz4, also several frames in a row, decoded in this process.

A truncated or damaged input gives every byte that can be decoded before the damage, then CaptureError.
"""

from __future__ import annotations

import gzip
import importlib
import importlib.util
import io
import sys
import zlib
from typing import Any

from pktbpf.capture.stream import ByteStream, FileStream, HeadStream
from pktbpf.errors import CaptureError

# Bytes of one decoding step. A step that fails gives nothing, so that where the input can be read again the last one
# is repeated byte by byte; on a pipe this is the most that is lost before damage.
PIECE = 1 << 15

MAGICS: dict[str, tuple[bytes, ...]] = {
    "gz": (b"\x1f\x8b",),
    "bz2": (b"BZh",),
    "xz": (b"\xfd7zXZ\0",),
    "zst": (b"\x28\xb5\x2f\xfd", *(bytes([0x50 + n]) + b"\x2a\x4d\x18" for n in range(16))),
    "lz4": (b"\x04\x22\x4d\x18",),
}
HEAD_BYTES = 6


def kind_of(head: bytes) -> str | None:
    """The compression that the first bytes tell, None for none."""
    return next((kind for kind, magics in MAGICS.items() if head.startswith(magics)), None)


def decompressed(raw: FileStream) -> ByteStream:
    """The stream itself, or a stream of its content when it is compressed."""
    head = bytearray(HEAD_BYTES)
    have = 0
    try:
        while have < HEAD_BYTES and (count := raw.readinto(memoryview(head)[have:])):
            have += count
        kind = kind_of(bytes(head[:have]))
        whole = HeadStream(bytes(head[:have]), raw)
        return whole if kind is None else DecodedStream(whole, kind)
    except BaseException:
        raw.close()
        raise


class _Raw(io.RawIOBase):
    """A ByteStream as the file object that decoders read from."""

    def __init__(self, stream: ByteStream):
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._stream.readinto(memoryview(buffer))


class DecodedStream:
    """The decoded content of a compressed stream."""

    def __init__(self, raw: HeadStream, kind: str):
        self.name = raw.name
        self.size = raw.size
        self._raw = raw
        self._kind = kind
        self._offset = 0
        self._errors = _decoder_errors(kind)
        self._file = _decoder(raw, kind)
        self._rest = b""  # what could be decoded of the step that failed
        self._failure: Exception | None = None

    @property
    def position(self) -> int:
        """Bytes consumed of the compressed input."""
        return self._raw.position

    def readinto(self, view: memoryview) -> int:
        """Decode into the front of `view`."""
        size = min(len(view), PIECE)
        data = b""
        if self._failure is None:
            try:
                data = self._file.read1(size)
            except CaptureError:
                raise
            except self._errors as error:
                self._failure = error
                self._rest = self._repeat()
        if self._failure is not None:
            data, self._rest = self._rest[:size], self._rest[size:]
            if not data:
                reason = f"{self._kind} data: {self._failure}"
                raise CaptureError(reason, path=self.name, offset=self._offset) from self._failure
        view[: len(data)] = data
        self._offset += len(data)
        return len(data)

    def _repeat(self) -> bytes:
        """Decode the step that failed once more, in steps of a byte up to the damage; nothing for a pipe."""
        raw = self._raw.reopen()
        if raw is None:
            return b""
        rest = bytearray()
        try:
            # The fast gzip decoders drop the last bytes before a wrong checksum, the standard one does not.
            file = gzip.GzipFile(fileobj=_buffered(raw)) if self._kind == "gz" else _decoder(raw, self._kind)
            left = self._offset
            while left and (data := file.read1(min(left, PIECE))):
                left -= len(data)
            while byte := file.read1(1):
                rest += byte
        except self._errors:
            return bytes(rest)
        finally:
            raw.close()
        return bytes(rest)

    def close(self) -> None:
        """Close the decoder and the source."""
        self._file.close()
        self._raw.close()


def _decoder(raw: ByteStream, kind: str) -> Any:
    """A file object that decodes."""
    if kind == "lz4":
        import lz4.frame

        return lz4.frame.open(_buffered(raw), "rb")
    from xopen import xopen

    return xopen(_buffered(raw), "rb", threads=0, format=kind)


def _buffered(raw: ByteStream) -> io.BufferedReader:
    return io.BufferedReader(_Raw(raw), 1 << 17)


def _decoder_errors(kind: str) -> tuple[type[Exception], ...]:
    """What a decoder raises for data that it cannot decode."""
    found: tuple[type[Exception], ...] = (EOFError, OSError, ValueError, RuntimeError, MemoryError, zlib.error)
    if kind == "gz":
        # xopen takes the fastest of these that is installed; each has an error class of its own.
        for module in ("isal.isal_zlib", "zlib_ng.zlib_ng"):
            if importlib.util.find_spec(module.partition(".")[0]):
                found += (importlib.import_module(module).error,)
    elif kind == "xz":
        import lzma

        found += (lzma.LZMAError,)
    elif kind == "zst":
        if sys.version_info >= (3, 14):
            from compression.zstd import ZstdError
        else:
            from backports.zstd import ZstdError
        found += (ZstdError,)
    return found
