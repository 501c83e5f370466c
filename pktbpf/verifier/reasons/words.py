"""What registers and stack bytes hold, and where a value came from, in words instead of the log's notation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pktbpf.abi.context import field_at
from pktbpf.isa.extended import Insn
from pktbpf.verifier.scalar import S64_MAX, S64_MIN, Scalar, signed64
from pktbpf.verifier.state import (
    BASE,
    BTF,
    CTX,
    DYNPTR,
    FUNC,
    MAP_KEY,
    MAP_PTR,
    MAP_VALUE,
    MEM,
    NOT_INIT,
    OR_NULL,
    RDONLY,
    RINGBUF,
    SCALAR,
    SOCK_COMMON,
    SOCKET,
    STACK,
    TCP_SOCK,
    Reg,
    kind_text,
)
from pktbpf.verifier.texts import unsigned_text
from pktbpf.verifier.tnum import M32, M64

if TYPE_CHECKING:
    from pktbpf.verifier.maps import MapInfo

_SOCKETS = {SOCK_COMMON: "a socket (struct bpf_sock)", SOCKET: "a socket (struct bpf_sock)",
            TCP_SOCK: "a TCP socket (struct bpf_tcp_sock)"}  # fmt: skip


def number(value: int) -> str:
    """Decimal where it is short."""
    return f"-{unsigned_text(-value)}" if value < 0 else unsigned_text(value)


def limits(v: Scalar) -> tuple[int, int] | None:
    """Smallest and largest value, read as signed where that says something; None for any number."""
    if (v[2], v[3]) != (S64_MIN, S64_MAX):
        return v[2], v[3]
    return None if (v[4], v[5]) == (0, M64) else (v[4], v[5])


def exact(reg: Reg) -> int:
    """The number in a register that holds one known number, signed."""
    return signed64(reg.v[0])


def alignment(v: Scalar) -> int:
    """The largest power of two up to 4096 that every value is a multiple of, 1 for none."""
    low = (v[0] | v[1]) & 4095
    return low & -low if low else 4096


def scalar_words(v: Scalar) -> str:
    """`0..255`, `exactly 3`, `any number`."""
    if not v[1]:
        return f"exactly {number(signed64(v[0]))}"
    found = limits(v)
    if found is None:
        text = "any number"
    elif found == (0, M32):
        text = "any 32-bit number"
    elif found[0] == S64_MIN and found[1] > 1 << 61:
        text = "nearly any number"
    elif found[0] == S64_MIN:
        text = f"{number(found[1])} or less, or negative"
    else:
        text = f"{number(found[0])}..{number(found[1])}"
    step = alignment(v)
    return text if step == 1 else f"{text}, a multiple of {step}"


def map_words(info: MapInfo) -> str:
    """`map 'counts'`; the kind where it has no name."""
    return f"map '{info.name}'" if info.name else f"the {info.kind} map"


def span(reg: Reg) -> tuple[int, int | None]:
    """Smallest and largest offset of a pointer from the start of its memory; None for no limit."""
    high = reg.v[3] if reg.kind == STACK or reg.v[2] < 0 else reg.v[5]
    return reg.off + reg.v[2], None if high >= 1 << 29 else reg.off + signed64(high)


def _offset_words(reg: Reg) -> str:
    low, high = span(reg)
    if low == high:
        return f" {'+' if low >= 0 else '-'} {number(abs(low))}" if low else ""
    return f" + {number(low)}..{number(high) if high is not None else 'no limit'}"


def _stack_words(reg: Reg, frame: int) -> str:
    low, high = span(reg)
    owner = "" if reg.frame == frame else " of an outer function"
    if high == low:
        return f"stack address fp{low:+d}{owner}" if low else f"the frame pointer{owner}"
    return f"stack address fp{low:+d}..{f'fp{high:+d}' if high is not None else 'anything'}{owner}"


def register_words(reg: Reg, frame: int) -> str:
    """What a register holds, as seen from frame `frame`."""
    kind, base = reg.kind, reg.kind & BASE
    if kind == NOT_INIT:
        return "nothing: it is not set"
    if kind == SCALAR:
        return scalar_words(reg.v)
    if kind == STACK:
        return _stack_words(reg, frame)
    null = ", or null" if kind & OR_NULL else ""
    if base == MAP_PTR:
        return f"{map_words(reg.obj)} itself"
    if base in (MAP_VALUE, MAP_KEY):
        size, word = (reg.obj.value_size, "value") if base == MAP_VALUE else (reg.obj.key_size, "key")
        return f"address of a {word} of {map_words(reg.obj)} ({count(size)}){_offset_words(reg)}{null}"
    if base == MEM:
        what = "a ring buffer record" if kind & RINGBUF else "read-only memory" if kind & RDONLY else "memory"
        return f"address of {what} ({count(reg.obj)}){_offset_words(reg)}{null}"
    if base == CTX:
        return f"the context (struct __sk_buff){_offset_words(reg)}"
    if base == BTF:
        return f"address of the kernel's struct {reg.obj}{null}"
    if base == FUNC:
        return "address of a function of the program"
    if base == DYNPTR:
        return "a dynptr that a helper made"
    return _SOCKETS.get(base, f"a pointer ({kind_text(kind)})") + null


def count(amount: int) -> str:
    """`1 byte`, `16 bytes`."""
    return f"{amount} byte" if amount == 1 else f"{amount} bytes"


def places(offset: int, size: int) -> str:
    """What is added to an address for an access: ` + 4`, ` + 4..7`, ` - 1..6`."""
    first, last = offset, offset + max(size, 1) - 1
    if first < 0:
        return f" + ({first}..{last})" if size > 1 else f" - {-first}"
    return f" + {first}" if size <= 1 else f" + {first}..{last}"


def context_field(offset: int) -> str:
    """`skb->len`, for an offset into the context; empty for none."""
    found = field_at(offset)
    return f"skb->{found.name}" if found is not None else ""


def made_words(insn: Insn, how: str, pointer: Reg | None, target: MapInfo | None, callee: str) -> str:
    """How an instruction made a value. pointer: what the address register of a load held. target: the map that a
    helper was asked about. callee: the name of what it calls."""
    if how == "load" and pointer is not None:
        return _load_words(insn, pointer)
    if how == "result":
        about = f" ({map_words(target)})" if target is not None else ""
        return f"result of {callee}{about}"
    if how == "cleared":
        return "lost: a packet load clears R0 to R5" if insn.code & 7 == 0 else "lost: a call clears R1 to R5"
    return {
        "packet": "loaded from the packet",
        "fill": "read back from the stack",
        "spill": "saved on the stack",
        "store": "written",
        "written": "written by the call",
        "argument": "argument of the function",
        "returned": "returned by the function",
        "exchange": "by an atomic operation",
        "map": f"{map_words(target)} itself" if target is not None else "a map",
        "value": f"value of {map_words(target)}" if target is not None else "value of a map",
        "function": "address of a function",
        "load": "loaded from memory",
    }.get(how, "")


def _load_words(insn: Insn, pointer: Reg) -> str:
    base = pointer.kind & BASE
    if base == CTX:
        name = context_field(insn.off + pointer.off)
        return f"{name} of the context" if name else "loaded from the context"
    if base in (MAP_VALUE, MAP_KEY):
        return f"loaded from a {'value' if base == MAP_VALUE else 'key'} of {map_words(pointer.obj)}"
    if base == STACK:
        return "loaded from the stack"
    if base == MEM:
        return "loaded from a helper's memory"
    return "loaded from memory"
