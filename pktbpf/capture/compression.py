"""Compressed input by content: gzip, bzip2, xz, zstd and lz4, also several frames in a row, decoded in this process.

A truncated or damaged input gives every byte before the damage, then CaptureError.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import sys
import zlib
from typing import Any

from pktbpf.capture.stream import ByteStream, HeadStream
from pktbpf.errors import CaptureError

# A read hands out at most this much, so that damage in the compressed data costs no more than that of sound data.
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


def decompressed(raw: ByteStream) -> ByteStream:
    """The stream itself, or a stream of its content when it is compressed."""
    head = bytearray(HEAD_BYTES)
    have = 0
    try:
        while have < HEAD_BYTES and (count := raw.readinto(memoryview(head)[have:])):
            have += count
    except BaseException:
        raw.close()
        raise
    kind = kind_of(bytes(head[:have]))
    whole = HeadStream(bytes(head[:have]), raw)
    return whole if kind is None else DecodedStream(whole, kind)


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

    def __init__(self, raw: ByteStream, kind: str):
        self.name = raw.name
        self.size = raw.size
        self._raw = raw
        self._kind = kind
        self._offset = 0
        self._errors = _decoder_errors(kind)
        source = io.BufferedReader(_Raw(raw), 1 << 17)
        if kind == "lz4":
            import lz4.frame

            self._file: Any = lz4.frame.open(source, "rb")
        else:
            from xopen import xopen

            self._file = xopen(source, "rb", threads=0, format=kind)

    @property
    def position(self) -> int:
        """Bytes consumed of the compressed input."""
        return self._raw.position

    def readinto(self, view: memoryview) -> int:
        """Decode into the front of `view`."""
        try:
            data = self._file.read1(min(len(view), PIECE))
        except CaptureError:
            raise
        except self._errors as error:
            raise CaptureError(f"{self._kind} data: {error}", path=self.name, offset=self._offset) from error
        view[: len(data)] = data
        self._offset += len(data)
        return len(data)

    def close(self) -> None:
        """Close the decoder and the source."""
        self._file.close()
        self._raw.close()


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
