"""Arguments of helpers: what each register must hold, by the kinds that the rows of `pktbpf.abi.helpers` name.

`check` is asked for one argument after the other, in the kernel's order; a `Call` keeps what they say together. Mirrors
check_func_arg and what it calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pktbpf.abi import map_kinds
from pktbpf.abi.helpers import Arg, Helper
from pktbpf.verifier import dynptrs, kernel_objects, kptrs, memory, scalar, stack
from pktbpf.verifier.alu import readable
from pktbpf.verifier.errors import ENOTSUPP, denied, invalid, refuse
from pktbpf.verifier.precision import mark_register, mark_slot
from pktbpf.verifier.state import (
    ALLOC,
    BASE,
    BTF,
    CTX,
    DYNPTR,
    FUNC,
    MAP_KEY,
    MAP_PTR,
    MAP_VALUE,
    MEM,
    OR_NULL,
    PERCPU,
    RCU,
    RDONLY,
    RINGBUF,
    SCALAR,
    SOCK_COMMON,
    SOCKET,
    SPILL,
    STACK,
    TCP_SOCK,
    TRUSTED,
    XDP_SOCK,
    ZERO_BYTE,
    Reg,
    kind_text,
    spilled_scalar,
)

if TYPE_CHECKING:
    from pktbpf.program import ValueField
    from pktbpf.verifier.maps import MapInfo
    from pktbpf.verifier.state import Frame
    from pktbpf.verifier.walk import Walk

MAX_VARIABLE_SIZE = 1 << 29
_UNBOUNDED_SIZE = "unbounded size, use 'var &= const' or 'if (var < const)'"
# What a map of sockets holds is put in as a socket.
_PLAIN_VALUE, _SOCKET_VALUE = Arg("value"), Arg("btf_sock_common")
# The packet kinds take part in messages although no socket filter can hold one.
_MEM_TEXT = "fp, pkt, pkt_meta, map_key, map_value, mem, ringbuf_mem, buf, trusted_ptr_"
_MEM_KINDS = (STACK, MAP_KEY, MAP_VALUE, MEM, MEM | RINGBUF, BTF | TRUSTED)
_ALLOWED: dict[str, tuple[tuple[int, ...], str]] = {
    "key": (_MEM_KINDS, _MEM_TEXT),
    "value": (_MEM_KINDS, _MEM_TEXT),
    "mem": (_MEM_KINDS, _MEM_TEXT),
    "fixed": (_MEM_KINDS, _MEM_TEXT),
    "size": ((SCALAR,), "scalar"),
    "size0": ((SCALAR,), "scalar"),
    "alloc_size0": ((SCALAR,), "scalar"),
    "map": ((MAP_PTR,), "map_ptr"),
    "ctx": ((CTX,), "ctx"),
    "sock_common": ((SOCK_COMMON, SOCKET, TCP_SOCK, XDP_SOCK), "sock_common, sock, tcp_sock, xdp_sock"),
    "btf_sock_common": (
        (SOCK_COMMON, SOCKET, TCP_SOCK, XDP_SOCK, BTF, BTF | TRUSTED),
        "sock_common, sock, tcp_sock, xdp_sock, ptr_, trusted_ptr_",
    ),
    "btf": ((BTF, BTF | TRUSTED, BTF | RCU), "ptr_, trusted_ptr_, rcu_ptr_"),
    "btf_any": ((BTF, BTF | TRUSTED, BTF | RCU), "ptr_, trusted_ptr_, rcu_ptr_"),
    "spin_lock": ((MAP_VALUE, BTF | ALLOC), "map_value, ptr_"),
    "kptr": ((MAP_VALUE, BTF | ALLOC), "map_value, ptr_"),
    "ringbuf_mem": ((MEM | RINGBUF,), "ringbuf_mem"),
    "percpu_btf": ((BTF | PERCPU, BTF | PERCPU | RCU, BTF | PERCPU | TRUSTED),
                   "percpu_ptr_, percpu_rcu_ptr_, percpu_trusted_ptr_"),
    "func": ((FUNC,), "func"),
    "stack": ((STACK,), "fp"),
    "const_str": ((MAP_VALUE,), "map_value"),
    "timer": ((MAP_VALUE,), "map_value"),
    "dynptr": ((STACK, DYNPTR), "fp, dynptr_ptr"),
}  # fmt: skip
_FIXED_OFFSET = (BTF, BTF | TRUSTED, BTF | RCU, BTF | ALLOC)
_ANY_OFFSET = (STACK, MAP_KEY, MAP_VALUE, MEM, MEM | RDONLY, MEM | RINGBUF, SCALAR)


class Call:
    """What the arguments of one call have said so far."""

    __slots__ = (
        "callee", "const_key", "dynptr", "field", "function", "helper", "info", "map_uid", "mem_size", "percpu", "ref",
        "release", "size_bound", "write_at", "write_size",
    )  # fmt: skip

    def __init__(self, helper: Helper):
        self.helper = helper
        self.callee: Frame | None = None
        self.info: MapInfo | None = None
        self.map_uid = 0
        self.ref = 0
        self.release = 0
        self.write_at = 0
        self.write_size = 0
        self.size_bound = 0
        self.mem_size = 0
        self.const_key = -1
        self.function = -1
        self.field: ValueField | None = None
        self.dynptr: tuple[int, int] = (0, 0)
        self.percpu: Reg | None = None


def check(walk: Walk, call: Call, args: tuple[Arg, ...], position: int, arg: Arg) -> None:
    number = position + 1
    reg = readable(walk, number)
    kind = arg.kind
    if kind == "any":
        if reg.kind != SCALAR and not walk.leaks_pointers:
            denied(f"R{number} leaks addr into helper function")
        return
    if kind == "value" and call.info is not None and call.info.kind in ("SOCKMAP", "SOCKHASH"):
        if arg != _PLAIN_VALUE:
            invalid("invalid arg_type for sockmap/sockhash")
        arg, kind = _SOCKET_VALUE, _SOCKET_VALUE.kind
    if not (reg.is_null and arg.null):
        _check_kind(walk, call, number, reg, arg)
        if arg.release:
            _check_released_offset(walk, reg, number, arg)
        else:
            check_offset(walk, reg, number)
    if arg.release:
        _check_release(walk, call, number, reg, arg)
    if reg.ref and kind != "kptr":
        if call.ref:
            denied(f"more than one arg with ref_obj_id R{number} {reg.ref} {call.ref}")
        call.ref = reg.ref
    rule = _RULES.get(kind)
    if rule is not None:
        rule(walk, call, number, reg, args, arg)


def _check_kind(walk: Walk, call: Call, number: int, reg: Reg, arg: Arg) -> None:
    kind = reg.kind
    if arg.rdonly:
        kind &= ~RDONLY
    if arg.null:
        kind &= ~OR_NULL
    if arg.kind == "btf_any" and kind & ALLOC:
        kind &= ~(ALLOC | PERCPU)
    wanted, text = _ALLOWED[arg.kind]
    if kind not in wanted:
        denied(f"R{number} type={walk.words.kind(reg.kind)} expected={walk.words.expected(text)}")
    if kind & BASE != BTF:
        return
    if wanted is _MEM_KINDS:
        if not arg.rdonly:
            denied(f"bpf_{call.helper.name}() may write into memory pointed by R{number} type={kind_text(reg.kind)}")
        return
    if arg.kind == "btf_any":
        assert call.info is not None
        assert call.field is not None
        kptrs.check_given(walk, call.info, call.field, reg, number)
        return
    if reg.kind & OR_NULL and (not arg.null or arg.release):
        denied(f"Possibly NULL pointer passed to helper arg{number}")
    structure = arg.of if arg.kind == "btf" else "sock_common" if arg.kind == "btf_sock_common" else ""
    lines = kernel_objects.mismatch(walk, reg, structure) if structure else None
    if lines is not None:
        denied(*lines, f"R{number} is of type {reg.obj} but {structure} is expected")


def _check_released_offset(walk: Walk, reg: Reg, number: int, arg: Arg) -> None:
    if arg.kind == "dynptr" and reg.kind == STACK:
        return
    if not walk.profile.moved_records:
        return
    if reg.off and walk.profile.zero_offsets:
        invalid(f"R{number} must have zero offset when passed to release func or trusted arg to kfunc")
    memory.check_plain_pointer(walk, reg, number)


def check_offset(walk: Walk, reg: Reg, number: int) -> None:
    """Pointers into memory may have any offset, objects of the kernel a fixed one, others none."""
    if reg.kind not in _ANY_OFFSET:
        memory.check_plain_pointer(walk, reg, number, fixed_allowed=reg.kind in _FIXED_OFFSET)


def _check_release(walk: Walk, call: Call, number: int, reg: Reg, arg: Arg) -> None:
    if arg.kind == "dynptr":
        if reg.kind != STACK:
            invalid("cannot release unowned const bpf_dynptr")
        found = dynptrs.find(walk, reg)
        if found is None or not found.ref:
            invalid(*dynptrs.why_not(walk, reg), f"arg {number} is an unacquired reference")
    elif not reg.ref and not reg.is_null:
        invalid(f"R{number} must be referenced when passed to release function")
    call.release = number


def check_memory(
    walk: Walk, number: int, size: int, *, write: bool, zero_allowed: bool, call: Call | None, raw: bool
) -> None:
    """Memory that a helper reads or writes: `size` bytes from register `number`."""
    reg = walk.regs[number]
    base = reg.kind & BASE
    if base == STACK:
        marks = stack.check_range(
            walk, number, reg.off, size, zero_allowed=zero_allowed, write=write, raw=raw and call is not None
        )
        if marks and call is not None:
            call.write_at, call.write_size = number, size
    elif base == MAP_VALUE:
        memory.check_map_permission(reg.obj, reg.off, size, write)
        memory.check_map_value(walk, number, reg.off, size, zero_allowed, direct=False)
    elif base == MEM:
        if write and reg.kind & RDONLY:
            denied(f"R{number} cannot write into {kind_text(reg.kind)}")
        memory.check_region(walk, number, reg.off, size, reg.obj, zero_allowed)
    elif base == MAP_KEY:
        if write:
            denied(f"R{number} cannot write into {kind_text(reg.kind)}")
        memory.check_region(walk, number, reg.off, size, reg.obj.key_size)
    elif base == BTF:
        kernel_objects.load(walk, reg, number, reg.off, size, False, -1)
    elif not (zero_allowed and size == 0 and reg.is_null):
        denied(f"R{number} type={walk.words.kind(reg.kind)} expected=fp")


def _map(walk: Walk, call: Call, number: int, reg: Reg, args: tuple[Arg, ...], arg: Arg) -> None:
    if call.info is not None and (call.info is not reg.obj or call.map_uid != reg.uid):
        invalid(
            f"timer pointer in R1 map_uid={call.map_uid} doesn't match map pointer in R2 map_uid={reg.uid}"
        )
    call.info = reg.obj
    call.map_uid = reg.uid


def _key(walk: Walk, call: Call, number: int, reg: Reg, args: tuple[Arg, ...], arg: Arg) -> None:
    assert call.info is not None
    size = call.info.key_size
    check_memory(walk, number, size, write=False, zero_allowed=False, call=None, raw=False)
    if call.info.kind in ("ARRAY", "PERCPU_ARRAY") and walk.profile.elides_null:
        call.const_key = _constant_key(walk, reg, size)


def _constant_key(walk: Walk, reg: Reg, size: int) -> int:
    """The key on the stack if it is one known number, else -1."""
    if not walk.capable or reg.kind != STACK or reg.v[1]:
        return -1
    frame = walk.state.frames[reg.frame]
    place = -(reg.off + scalar.signed64(reg.v[0])) - 1
    types, spill = frame.stack[place >> 3]
    lowest = place & 7
    zeros = 0
    while zeros <= lowest and types[lowest - zeros] == ZERO_BYTE:
        zeros += 1
    if zeros >= size:
        return 0
    if spill is None or not spilled_scalar((types, spill)):
        return -1
    spills = 0
    while spills <= lowest and types[lowest - spills] == SPILL:
        spills += 1
    if spills != size or spill.v[1]:
        return -1
    mark_slot(walk, frame.number, place >> 3)
    return scalar.signed64(spill.v[0])


def _value(walk: Walk, call: Call, number: int, reg: Reg, args: tuple[Arg, ...], arg: Arg) -> None:
    if arg.null and reg.is_null:
        return
    assert call.info is not None
    uninit, write = arg.uninit, arg.write
    if call.info.kind == "BLOOM_FILTER" and call.helper.name == "map_peek_elem":
        uninit = write = False
    check_memory(
        walk, number, call.info.value_size, write=write, zero_allowed=False, call=call, raw=uninit
    )


def _fixed(walk: Walk, call: Call, number: int, reg: Reg, args: tuple[Arg, ...], arg: Arg) -> None:
    check_memory(walk, number, arg.size, write=arg.write, zero_allowed=False, call=call, raw=arg.uninit)
    if arg.aligned:
        memory.check_alignment(walk, reg, 0, arg.size, True)


def check_sized(walk: Walk, number: int, *, write: bool) -> None:
    """Memory from register `number` whose size is in the next register, for a kernel function; zero is allowed."""
    reg = walk.regs[number + 1]
    _check_size(reg, number + 1, zero_allowed=True)
    check_memory(walk, number, reg.v[5], write=write, zero_allowed=True, call=None, raw=False)
    mark_register(walk, number + 1)


def _check_size(reg: Reg, number: int, zero_allowed: bool) -> None:
    v = reg.v
    if v[2] < 0:
        denied(f"R{number} min value is negative, either use unsigned or 'var &= const'")
    if v[4] == 0 and not zero_allowed:
        denied(f"R{number} invalid zero-sized read: u64=[{v[4]},{scalar.signed64(v[5])}]")
    if v[5] >= MAX_VARIABLE_SIZE:
        denied(f"R{number} unbounded memory access, use 'var &= const' or 'if (var < const)'")


def _size(walk: Walk, call: Call, number: int, reg: Reg, args: tuple[Arg, ...], arg: Arg) -> None:
    v = reg.v
    zero_allowed = arg.kind == "size0"
    call.size_bound = v[5]
    buffer = args[number - 2]
    if walk.profile.sized_reads:
        _check_size(reg, number, zero_allowed)
    else:
        _check_size(reg, number, zero_allowed=True)
        if not v[4]:
            check_memory(walk, number - 1, 0, write=buffer.write, zero_allowed=zero_allowed, call=None, raw=False)
    check_memory(
        walk,
        number - 1,
        v[5],
        write=buffer.write,
        zero_allowed=zero_allowed,
        call=None if v[1] else call,
        raw=buffer.uninit,
    )
    mark_register(walk, number)


def _alloc_size(walk: Walk, call: Call, number: int, reg: Reg, args: tuple[Arg, ...], arg: Arg) -> None:
    if reg.v[1]:
        words = "is not a known constant'" if walk.profile.asks_constant else _UNBOUNDED_SIZE
        denied(f"R{number} {words}")
    call.mem_size = reg.v[0] & 0xFFFFFFFF
    mark_register(walk, number)


def _function(walk: Walk, call: Call, number: int, reg: Reg, args: tuple[Arg, ...], arg: Arg) -> None:
    call.function = reg.obj


def _dynptr(walk: Walk, call: Call, number: int, reg: Reg, args: tuple[Arg, ...], arg: Arg) -> None:
    dynptrs.argument(walk, number, arg)


def _spin_lock(walk: Walk, call: Call, number: int, reg: Reg, args: tuple[Arg, ...], arg: Arg) -> None:
    field_pointer(reg, number, "spin_lock", "bpf_spin_lock")


def _timer(walk: Walk, call: Call, number: int, reg: Reg, args: tuple[Arg, ...], arg: Arg) -> None:
    field_pointer(reg, number, "timer", "bpf_timer")
    call.info = reg.obj
    call.map_uid = reg.uid


def field_pointer(reg: Reg, number: int, kind: str, text: str) -> None:
    """The pointer must name exactly that field of a map value."""
    if reg.v[1]:
        invalid(f"R{number} doesn't have constant offset. {text} has to be at the constant offset")
    info: MapInfo = reg.obj
    if not info.has_types:
        invalid(f"map '{info.name}' has to have BTF in order to use {text}")
    item = info.field(kind)
    if item is None:
        invalid(f"map '{info.name}' has no valid {text}")
    place = reg.off + scalar.signed64(reg.v[0])
    if item.offset != place:
        invalid(f"off {place} doesn't point to 'struct {text}' that is at {item.offset}")


def _kptr(walk: Walk, call: Call, number: int, reg: Reg, args: tuple[Arg, ...], arg: Arg) -> None:
    call.info = reg.obj
    call.field = kptrs.exchanged(reg, number)


def _percpu(walk: Walk, call: Call, number: int, reg: Reg, args: tuple[Arg, ...], arg: Arg) -> None:
    call.percpu = reg


def _const_str(walk: Walk, call: Call, number: int, reg: Reg, args: tuple[Arg, ...], arg: Arg) -> None:
    check_constant_string(walk, number)


def check_constant_string(walk: Walk, number: int) -> None:
    """Register `number` points into a frozen read-only map, to a string that ends there."""
    reg = walk.regs[number]
    info: MapInfo = reg.obj
    if not (info.read_only and info.frozen):
        denied(f"R{number} does not point to a readonly map'")
    if reg.v[1]:
        denied(f"R{number} is not a constant address'")
    if not map_kinds.BY_NAME[info.kind].direct:
        denied("no direct value access support for this map type")
    memory.check_map_value(walk, number, reg.off, info.value_size - reg.off, False, direct=False)
    if info.max_entries != 1:
        refuse(ENOTSUPP, "direct value access on string failed")
    place = reg.off + reg.v[0]
    contents = info.contents if info.contents is not None else bytes(info.value_size)
    if 0 not in contents[place:]:
        invalid("string is not zero-terminated")


_RULES = {
    "map": _map,
    "key": _key,
    "value": _value,
    "fixed": _fixed,
    "size": _size,
    "size0": _size,
    "alloc_size0": _alloc_size,
    "func": _function,
    "dynptr": _dynptr,
    "spin_lock": _spin_lock,
    "timer": _timer,
    "kptr": _kptr,
    "percpu_btf": _percpu,
    "const_str": _const_str,
}
