"""Loads and stores through a pointer of any kind: context, stack, map values and keys, helper memory, sockets.

`access` is asked once per access: it checks alignment, bounds and permission for the kind of pointer in a register, and
leaves what a load brings in the target register. Mirrors check_mem_access and what it calls, for a socket filter.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from pktbpf.abi.context import Access, field_at
from pktbpf.verifier import kernel_objects, kptrs, scalar, stack, tnum
from pktbpf.verifier.errors import ENOTSUPP, denied, refuse
from pktbpf.verifier.state import (
    BASE,
    BTF,
    CTX,
    MAP_KEY,
    MAP_PTR,
    MAP_VALUE,
    MEM,
    OR_NULL,
    RDONLY,
    SCALAR,
    SOCK_COMMON,
    SOCKET,
    STACK,
    TCP_SOCK,
    UNTRUSTED,
    XDP_SOCK,
    Reg,
)

if TYPE_CHECKING:
    from pktbpf.verifier.maps import MapInfo
    from pktbpf.verifier.walk import Walk

MAX_VARIABLE_OFFSET = 1 << 29
SOCK_KINDS = (SOCK_COMMON, SOCKET, TCP_SOCK, XDP_SOCK)
_CONTEXT_SIZE = 192
# struct bpf_sock: fields of four bytes; type, protocol, mark and priority are not for a sock_common.
_SOCK_SIZE, _SOCK_HIDDEN = 80, range(8, 24)
_SOCK_NARROW = {4, 8, 12, *range(24, 44), 44, *range(52, 72), 72, 76}
_TCP_SOCK_SIZE = 96
_WORD = {STACK: "stack ", CTX: "context ", MAP_VALUE: "value ", MAP_KEY: "key ", SOCK_COMMON: "sock_common ",
         SOCKET: "sock ", TCP_SOCK: "tcp_sock ", XDP_SOCK: "xdp_sock "}  # fmt: skip


def check_alignment(walk: Walk, reg: Reg, offset: int, size: int, strict: bool) -> None:
    """Stack accesses, and others where the instruction demands it, must be aligned."""
    if size == 1 or not (strict or reg.kind == STACK):
        return
    if not (reg.v[1] or (reg.v[0] + reg.off + offset) & (size - 1)):
        return
    place = tnum.add((reg.v[0], reg.v[1]), tnum.exact(reg.off + offset))
    if (place[0] | place[1]) & (size - 1):
        word = _WORD.get(reg.kind, "")
        denied(f"misaligned {word}access off {walk.words.tnum(reg.v)}+{reg.off}+{offset} size {size}")


def _inside(walk: Walk, number: int, offset: int, size: int, region: int, zero_allowed: bool) -> str | None:
    """None, or the kernel's line for an access outside a region of `region` bytes."""
    if offset >= 0 and (size > 0 or (size == 0 and zero_allowed)) and offset + size <= region:
        return None
    kind = walk.regs[number].kind
    if kind == MAP_KEY:
        return f"invalid access to map key, key_size={region} off={offset} size={size}"
    if kind == MAP_VALUE:
        return f"invalid access to map value, value_size={region} off={offset} size={size}"
    return f"invalid access to memory, mem_size={region} off={offset} size={size}"


def check_region(walk: Walk, number: int, offset: int, size: int, region: int, zero_allowed: bool = False) -> None:
    """Lowest and highest place a pointer may reach both lie inside its memory."""
    reg = walk.regs[number]
    low, high = reg.v[2], reg.v[5]
    if low < 0 and (low == scalar.S64_MIN or not -(1 << 31) <= offset + low < 1 << 31 or low + offset < 0):
        denied(f"R{number} min value is negative, either use unsigned index or do a if (index >=0) check.")
    line = _inside(walk, number, scalar.signed32(low + offset), size, region, zero_allowed)
    if line:
        denied(line, f"R{number} min value is outside of the allowed memory range")
    if high >= MAX_VARIABLE_OFFSET:
        denied(f"R{number} unbounded memory access, make sure to bounds check any such access")
    line = _inside(walk, number, scalar.signed32(high + offset), size, region, zero_allowed)
    if line:
        denied(line, f"R{number} max value is outside of the allowed memory range")


def check_map_permission(info: MapInfo, offset: int, size: int, write: bool) -> None:
    """Maps may be read-only or write-only for programs."""
    if write and info.read_only:
        denied(f"write into map forbidden, value_size={info.value_size} off={offset} size={size}")
    if not write and info.write_only:
        denied(f"read from map forbidden, value_size={info.value_size} off={offset} size={size}")


def check_map_value(walk: Walk, number: int, offset: int, size: int, zero_allowed: bool, direct: bool) -> None:
    """Inside the value, and not touching a field that only helpers may touch."""
    reg = walk.regs[number]
    info: MapInfo = reg.obj
    check_region(walk, number, offset, size, info.value_size, zero_allowed)
    for item in info.fields:
        start, end = item.offset, item.offset + item.size
        if reg.v[2] + offset < end and start < reg.v[5] + offset + size:
            kptrs.check_touched(reg, item, offset, size, direct)


def check_plain_pointer(walk: Walk, reg: Reg, number: int, fixed_allowed: bool = False) -> None:
    """The pointer must be as it was handed out: no variable offset and, mostly, no fixed one."""
    if reg.off < 0 and walk.profile.negative_offsets:
        denied(f"negative offset {walk.words.kind(reg.kind)} ptr R{number} off={reg.off} disallowed")
    if not fixed_allowed and reg.off:
        denied(f"dereference of modified {walk.words.kind(reg.kind)} ptr R{number} off={reg.off} disallowed")
    if reg.v[1] or reg.v[0]:
        denied(f"variable {walk.words.kind(reg.kind)} access var_off={walk.words.tnum(reg.v)} disallowed")


@lru_cache(maxsize=4096)
def context_allows(offset: int, size: int, write: bool) -> bool | None:
    """Whether a socket filter may access these bytes of __sk_buff; None: yes, and the result is the socket pointer."""
    if offset < 0 or offset >= _CONTEXT_SIZE or offset % size:
        return False
    found = field_at(offset)
    if found is None or found.access is Access.NONE:
        return False
    if found.access is Access.SOCKET:
        return None if size == 8 and not write else False
    if found.name == "cb":
        return offset + size <= found.offset + found.size
    return not write and size <= 4


def _socket_allows(kind: int, offset: int, size: int) -> bool:
    if kind == SOCK_COMMON and offset in _SOCK_HIDDEN:
        return False
    if kind == TCP_SOCK:
        if offset < 0 or offset >= _TCP_SOCK_SIZE or offset % size:
            return False
        return size == (8 if offset in (80, 88) else 4)
    if kind == XDP_SOCK:
        return 0 <= offset < 4 and not offset % size and size == 4
    if offset < 0 or offset >= _SOCK_SIZE or offset % size:
        return False
    if offset in _SOCK_NARROW:
        return size <= 4
    if offset in (48, 49):
        return size <= (4 if size == 4 else 2)
    if 50 <= offset < 52:
        return False
    return size == 4


def _leak(walk: Walk, source: int, where: str) -> None:
    if source >= 0 and not walk.leaks_pointers and walk.regs[source].kind != SCALAR:
        denied(f"R{source} leaks addr into {where}")


def access(
    walk: Walk,
    number: int,
    offset: int,
    size: int,
    *,
    write: bool,
    value: int,
    strict: bool = False,
    signed: bool = False,
    constant: int | None = None,
    direct: bool = True,
) -> None:
    """Check a load into register `value` or a store from it (-1: no register) at register `number` + offset.

    constant: the immediate that a store writes. strict: alignment is demanded. signed: the load sign-extends.
    """
    reg = walk.regs[number]
    check_alignment(walk, reg, offset, size, strict)
    offset += reg.off
    kind = reg.kind
    if kind == STACK:
        stack.check_bounds(walk, number, offset, size, write)
        if write:
            stack.write(walk, number, offset, size, value, False, constant)
        else:
            stack.read(walk, number, offset, size, value)
    elif kind == CTX:
        _context(walk, reg, number, offset, size, write, value)
    elif kind == MAP_VALUE:
        _map_value(walk, reg, number, offset, size, write, value, signed)
    elif kind & BASE == MEM:
        _memory(walk, reg, number, offset, size, write, value)
    elif kind == MAP_KEY:
        if write:
            denied(f"write to change key R{number} not allowed")
        check_region(walk, number, offset, size, reg.obj.key_size)
        if value >= 0:
            walk.regs[value] = walk.unknown
    elif kind in SOCK_KINDS:
        _socket(walk, reg, number, offset, size, write, value)
    elif kind & BASE == BTF and not kind & OR_NULL:
        kernel_objects.load(walk, reg, number, offset, size, write, value)
    elif kind == MAP_PTR:
        kernel_objects.load_map(walk, number, offset, size, write, value)
    else:
        denied(f"R{number} invalid mem access '{walk.words.kind(kind)}'")
    if walk.facts is not None and direct:
        walk.note_access(reg, offset, size)
    if size < 8 and value >= 0 and not write:
        loaded = walk.regs[value]
        if loaded.kind == SCALAR:
            cut = scalar.sign_extend(loaded.v, size) if signed else walk.domain.truncate(loaded.v, size)
            if cut != loaded.v:
                walk.regs[value] = loaded.with_value(cut)


def _context(walk: Walk, reg: Reg, number: int, offset: int, size: int, write: bool, value: int) -> None:
    if write:
        _leak(walk, value, "ctx")
    check_plain_pointer(walk, reg, number)
    allowed = context_allows(offset, size, write)
    if allowed is False:
        denied(f"invalid bpf_context access off={offset} size={size}")
    if write or value < 0:
        return
    if allowed is None:
        walk.regs[value] = Reg(SOCK_COMMON | OR_NULL, id=walk.new_id())
    else:
        walk.regs[value] = walk.unknown


def _map_value(
    walk: Walk, reg: Reg, number: int, offset: int, size: int, write: bool, value: int, signed: bool
) -> None:
    if write:
        _leak(walk, value, "map")
    info: MapInfo = reg.obj
    check_map_permission(info, offset, size, write)
    check_map_value(walk, number, offset, size, zero_allowed=False, direct=True)
    if info.fields and not reg.v[1]:
        item = info.pointer_field_at(offset + scalar.signed64(reg.v[0]))
        if item is not None:
            kptrs.access(walk, info, item, value)
            return
    if write or value < 0:
        return
    known = None
    if info.constant_array and not reg.v[1]:
        if info.max_entries != 1:
            # The kernel takes the address of the only element, and refuses the program where there are more.
            refuse(ENOTSUPP)
        known = info.constant(offset + scalar.signed64(reg.v[0]), size, signed)
    if known is None:
        walk.regs[value] = walk.unknown
    else:
        walk.regs[value] = Reg(SCALAR, v=scalar.exact(known), precise=walk.always_precise)


def _memory(walk: Walk, reg: Reg, number: int, offset: int, size: int, write: bool, value: int) -> None:
    kind = reg.kind
    if kind & OR_NULL:
        denied(f"R{number} invalid mem access '{walk.words.kind(kind)}'")
    if write and kind & RDONLY:
        denied(f"R{number} cannot write into {walk.words.kind(kind)}")
    if write:
        _leak(walk, value, "mem")
    if not (kind & RDONLY and kind & UNTRUSTED):
        check_region(walk, number, offset, size, reg.obj)
    if value >= 0 and not write:
        walk.regs[value] = walk.unknown


def _socket(walk: Walk, reg: Reg, number: int, offset: int, size: int, write: bool, value: int) -> None:
    if write:
        denied(f"R{number} cannot write into {walk.words.kind(reg.kind)}")
    if reg.v[2] < 0:
        denied(f"R{number} min value is negative, either use unsigned index or do a if (index >=0) check.")
    if not _socket_allows(reg.kind, offset, size):
        denied(f"R{number} invalid {walk.words.kind(reg.kind)} access off={offset} size={size}")
    if value >= 0:
        walk.regs[value] = walk.unknown
