"""The only door to numba: `@hot` compiles a function and caches the machine code.

Numba's own cache watches only the file a function stands in, so a new row in a table elsewhere would leave a stale
core behind. Here the cache directory is keyed by a digest of every source file of the package. Where nothing can be
written, or the disk is full, or a cached file is damaged, the functions compile without a cache.
`NUMBA_DISABLE_JIT=1` runs them as plain Python.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numba
import numpy as np
from numba import types
from numba.core import cgutils, event
from numba.core import config as _numba_config
from numba.core.caching import CompileResultCacheImpl, FunctionCache, UserProvidedCacheLocator
from numba.extending import intrinsic
from numpy.typing import NDArray

# numba sets its options as module attributes at run time, which no stub can know.
numba_config: Any = _numba_config

# Types of compiled code. A scalar is an integer whose width numba infers; which one, the code around it says.
Scalar: TypeAlias = Any
Bytes: TypeAlias = NDArray[np.uint8]
Ints: TypeAlias = NDArray[np.int64]
Words: TypeAlias = NDArray[np.uint64]

F = TypeVar("F", bound=Callable[..., Any])

JIT_DISABLED = bool(numba_config.DISABLE_JIT)


def source_digest(root: Path | None = None) -> str:
    """Digest of all Python sources below `root` (default: this package), the key of the cache directory."""
    root = root or Path(__file__).parent
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:20]


def _writable(path: Path) -> bool:
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return True
    except OSError:
        return False


@functools.cache
def cache_directory() -> Path | None:
    """`$PKTBPF_CACHE_DIR` or the user's cache directory, below it the digest; None where nothing can be written."""
    import platformdirs

    root = os.environ.get("PKTBPF_CACHE_DIR") or platformdirs.user_cache_dir("pktbpf")
    path = Path(root) / source_digest()
    return path if _writable(path) else None


class _Place(CompileResultCacheImpl):
    """The directory it is told and no other; beside the sources a stale core could be found."""

    _locator_classes = [UserProvidedCacheLocator]  # noqa: RUF012  as numba has it


class _Cache(FunctionCache):
    """Machine code on disk, for as long as the disk plays along: a failure costs the cache, never the run."""

    _impl_class = _Place

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The machine code for these types, None where it is not there or cannot be read."""
        try:
            return super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        except OSError:
            return None
        except (EOFError, pickle.UnpicklingError):
            with contextlib.suppress(OSError):
                self.flush()  # type: ignore[no-untyped-call]  # begin anew: saving reads the index, too
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep machine code, if there is room."""
        try:
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]
        except OSError:  # a full disk, a quota, a directory that went away
            self.disable()  # type: ignore[no-untyped-call]


def hot(function: F) -> F:
    """Compile without the interpreter lock, without wrap-around indexing, cached between processes."""
    options: dict[str, Any] = {"nogil": True, "boundscheck": False, "error_model": "numpy"}
    directory = None if JIT_DISABLED else cache_directory()
    if directory is None:
        return numba.njit(**options)(function)  # type: ignore[no-any-return]
    compiled = numba.njit(**options)(function)
    previous = numba_config.CACHE_DIR
    numba_config.CACHE_DIR = str(directory)
    try:
        compiled._cache = _Cache(function)  # type: ignore[no-untyped-call]
    except RuntimeError:  # no place below the directory, which could be written a moment ago
        pass
    finally:
        numba_config.CACHE_DIR = previous
    return compiled  # type: ignore[no-any-return]


class _Watch(event.Listener):
    """Tells of compilations from outside; one leads to others."""

    def __init__(self, begun: Callable[[], None], ended: Callable[[], None]):
        self.begun, self.ended = begun, ended
        self.depth = 0

    def on_start(self, event: Any) -> None:
        self.depth += 1
        if self.depth == 1:
            self.begun()

    def on_end(self, event: Any) -> None:
        self.depth -= 1
        if not self.depth:
            self.ended()


def watch_compilations(begun: Callable[[], None], ended: Callable[[], None]) -> None:
    """Call `begun` before each compilation and `ended` after it; machine code that was kept needs none."""
    event.register("numba:compile", _Watch(begun, ended))  # type: ignore[no-untyped-call]


def _array(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    return cgutils.create_struct_proxy(kind)(context, builder, value)  # type: ignore[no-untyped-call]


def _load(width: int, big_endian: bool) -> Callable[..., Any]:
    """An unaligned load of `width` bits from a uint8 array at a uint64 index, as uint64; no bounds check."""

    if JIT_DISABLED:
        count = width // 8

        def load_plain(data: Any, index: Any) -> Any:
            raw = data[int(index) : int(index) + count].tobytes()
            return np.uint64(int.from_bytes(raw, "big" if big_endian else "little"))

        return load_plain

    @intrinsic
    def load(typingctx: Any, data: Any, index: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            from llvmlite import ir

            array = _array(context, builder, signature.args[0], args[0])
            place = builder.gep(array.data, [args[1]], inbounds=False)
            typed = builder.bitcast(place, ir.IntType(width).as_pointer())
            value = builder.load(typed, align=1)
            if big_endian and width > 8:
                value = builder.bswap(value)
            return builder.zext(value, ir.IntType(64)) if width < 64 else value

        return types.uint64(data, types.uint64), codegen

    return load


def _store(width: int) -> Callable[..., Any]:
    """An unaligned little-endian store of the low `width` bits of a uint64 at a uint64 index; no bounds check."""

    if JIT_DISABLED:
        count = width // 8

        def store_plain(data: Any, index: Any, value: Any) -> None:
            raw = (int(value) & ((1 << width) - 1)).to_bytes(count, "little")
            for number, byte in enumerate(raw):
                data[int(index) + number] = byte

        return store_plain

    @intrinsic
    def store(typingctx: Any, data: Any, index: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            from llvmlite import ir

            array = _array(context, builder, signature.args[0], args[0])
            place = builder.gep(array.data, [args[1]], inbounds=False)
            typed = builder.bitcast(place, ir.IntType(width).as_pointer())
            narrow = builder.trunc(args[2], ir.IntType(width)) if width < 64 else args[2]
            builder.store(narrow, typed, align=1)
            return context.get_dummy_value()

        return types.void(data, types.uint64, types.uint64), codegen

    return store


load_be16, load_be32 = _load(16, True), _load(32, True)
load_u8, load_le16, load_le32, load_le64 = _load(8, False), _load(16, False), _load(32, False), _load(64, False)
store_u8, store_le16, store_le32, store_le64 = _store(8), _store(16), _store(32), _store(64)


def _peek(width: int) -> Callable[..., Any]:
    """An unaligned little-endian load of `width` bits from a machine address (uint64), as uint64."""

    if JIT_DISABLED:
        count = width // 8

        def peek_plain(address: Any) -> Any:
            import ctypes

            return np.uint64(int.from_bytes(ctypes.string_at(int(address), count), "little"))

        return peek_plain

    @intrinsic
    def peek(typingctx: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            from llvmlite import ir

            value = builder.load(builder.inttoptr(args[0], ir.IntType(width).as_pointer()), align=1)
            return builder.zext(value, ir.IntType(64)) if width < 64 else value

        return types.uint64(types.uint64), codegen

    return peek


def _poke(width: int) -> Callable[..., Any]:
    """An unaligned little-endian store of the low `width` bits of a uint64 to a machine address (uint64)."""

    if JIT_DISABLED:
        count = width // 8

        def poke_plain(address: Any, value: Any) -> None:
            import ctypes

            ctypes.memmove(int(address), (int(value) & ((1 << width) - 1)).to_bytes(count, "little"), count)

        return poke_plain

    @intrinsic
    def poke(typingctx: Any, address: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            from llvmlite import ir

            narrow = builder.trunc(args[1], ir.IntType(width)) if width < 64 else args[1]
            builder.store(narrow, builder.inttoptr(args[0], ir.IntType(width).as_pointer()), align=1)
            return context.get_dummy_value()

        return types.void(types.uint64, types.uint64), codegen

    return poke


peek8, peek16, peek32, peek64 = _peek(8), _peek(16), _peek(32), _peek(64)
poke8, poke16, poke32, poke64 = _poke(8), _poke(16), _poke(32), _poke(64)


def _borrowed() -> Callable[..., Any]:
    """A row of a C-ordered table as an array that owns nothing: slicing counts references, which cost 80 ns
    for each lookup in a map. The table must outlive the row."""

    if JIT_DISABLED:

        def row_plain(table: Any, number: Any) -> Any:
            return table[int(number)]

        return row_plain

    @intrinsic
    def row(typingctx: Any, table: Any, number: Any) -> Any:
        kind = types.Array(table.dtype, 1, "C")

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            whole = _array(context, builder, signature.args[0], args[0])
            word = context.get_value_type(types.intp)
            width, size = builder.extract_value(whole.shape, 1), builder.extract_value(whole.strides, 1)
            step = builder.extract_value(whole.strides, 0)
            start = builder.add(builder.ptrtoint(whole.data, word), builder.mul(args[1], step))
            made = context.make_array(kind)(context, builder)
            context.populate_array(
                made, data=builder.inttoptr(start, whole.data.type), shape=[width], strides=[size],
                itemsize=size, meminfo=None,
            )  # fmt: skip
            return made._getvalue()

        if not isinstance(table, types.Array) or table.ndim != 2 or table.layout != "C":
            return None
        return kind(table, types.intp), codegen

    return row


borrowed = _borrowed()


def _words_at() -> Callable[..., Any]:
    """`count` words at a machine address as an array that owns nothing. Their memory must outlive it."""

    if JIT_DISABLED:

        def words_plain(address: Any, count: Any) -> Any:
            import ctypes

            return np.ctypeslib.as_array((ctypes.c_uint64 * int(count)).from_address(int(address)))

        return words_plain

    @intrinsic
    def words(typingctx: Any, address: Any, count: Any) -> Any:
        kind = types.Array(types.uint64, 1, "C")

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            made = context.make_array(kind)(context, builder)
            size = context.get_constant(types.intp, 8)
            context.populate_array(
                made, data=builder.inttoptr(args[0], made.data.type), shape=[args[1]], strides=[size], itemsize=size,
                meminfo=None,
            )  # fmt: skip
            return made._getvalue()

        return kind(types.uint64, types.intp), codegen

    return words


words_at = _words_at()
