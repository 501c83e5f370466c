"""Calls of helpers: may this program name it, what does it do beyond its arguments, what comes back.

Mirrors check_helper_call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pktbpf.abi import helpers, map_kinds
from pktbpf.abi.helpers import Arg, Helper
from pktbpf.verifier import arguments, callbacks, dynptrs, formats, kernel_objects, kptrs, memory, references, scalar
from pktbpf.verifier.arguments import Call
from pktbpf.verifier.errors import denied, invalid, unsupported
from pktbpf.verifier.precision import mark_register
from pktbpf.verifier.state import (
    ALLOC,
    BTF,
    MAP_VALUE,
    MEM,
    OR_NULL,
    RCU,
    RINGBUF,
    SCALAR,
    TRUSTED,
    Reg,
    kind_text,
)

if TYPE_CHECKING:
    from pktbpf.verifier.code import Op
    from pktbpf.verifier.maps import MapInfo
    from pktbpf.verifier.walk import Walk

_MAX_ERRNO = 4095


def _find(walk: Walk, number: int) -> Helper:
    """The row of a helper that this program may call. Fails with EINVAL."""
    if not 0 <= number < walk.profile.last_helper:
        invalid(f"invalid func unknown#{number}")
    row = helpers.allowed(number, walk.privilege)
    if row is None or not walk.profile.has_helper(row):
        words = "program of this type cannot use helper" if walk.profile.names_program_type else "unknown func"
        invalid(f"{words} bpf_{helpers.helper_name(number)}#{number}")
    if row.gpl_only and not walk.gpl:
        invalid("cannot call GPL-restricted function from non-GPL compatible program")
    if row.sleeps:
        invalid("helper call might sleep in a non-sleepable prog")
    return row


def helper(walk: Walk, op: Op) -> None:
    """call helper"""
    walk.jumps += 1
    check_reserved(walk, op)
    if walk.state.locks and op.imm != 94:
        invalid("function calls are not allowed while holding a lock")
    row = _find(walk, op.imm)
    call = Call(row)
    args = row.arg_types
    for position, arg in enumerate(args):
        arguments.check(walk, call, args, position, arg)
    _record_map(walk, call)
    if call.write_size:
        for byte in range(call.write_size):
            memory.access(walk, call.write_at, byte, 1, write=True, value=-1, direct=False)
    if call.release:
        _release(walk, call, args[call.release - 1])
    _special(walk, call)
    regs = walk.regs
    regs[0] = regs[1] = regs[2] = regs[3] = regs[4] = regs[5] = walk.unset
    _result(walk, call)
    if call.info is not None and not map_kinds.compatible(call.info.kind, row.name):
        invalid(f"cannot pass map_type {call.info.number} into func bpf_{row.name}#{row.id}")
    if row.name == "tail_call" and walk.profile.returns_from_tail_calls:
        walk.may_return(walk.unknown)
        return
    walk.index += 1
    if call.callee is not None:
        callbacks.enter(walk, call.callee)


def check_reserved(walk: Walk, op: Op) -> None:
    """Fields of a call instruction that mean nothing must be zero."""
    known = (0, 1, 2) if walk.profile.function_pointers else (0, 1)
    if op.reg or (op.src != 2 and op.off) or op.src not in known or op.dst:
        invalid("BPF_CALL uses reserved fields")


_RECORDED = (
    "tail_call", "map_lookup_elem", "map_update_elem", "map_delete_elem", "map_push_elem", "map_pop_elem",
    "map_peek_elem", "for_each_map_elem", "map_lookup_percpu_elem",
)  # fmt: skip
_WRITERS = ("map_delete_elem", "map_update_elem", "map_push_elem", "map_pop_elem")


def _record_map(walk: Walk, call: Call) -> None:
    name = call.helper.name
    if name not in _RECORDED:
        return
    info = call.info
    assert info is not None
    if info.read_only and name in _WRITERS:
        denied("write into map forbidden")
    walk.record_map(info)
    if name != "tail_call":
        return
    if info.kind != "PROG_ARRAY":
        named = walk.profile.names_prog_array
        invalid("expected prog array map for tail call" if named else "kernel subsystem misconfigured verifier")
    index = walk.regs[3]
    if index.kind == SCALAR and not index.v[1] and index.v[0] < info.max_entries:
        mark_register(walk, 3)


def _release(walk: Walk, call: Call, arg: Arg) -> None:
    reg = walk.regs[call.release]
    if arg.kind == "dynptr":
        dynptrs.release(walk, reg)
        return
    if call.ref and call.field is not None:
        done = kptrs.give(walk, call.ref)
    elif call.ref:
        done = references.release(walk, call.ref)
    else:
        done = reg.is_null
    if not done:
        invalid(f"func bpf_{call.helper.name}#{call.helper.id} reference has not been acquired before")


def _special(walk: Walk, call: Call) -> None:
    """What single helpers do beyond their arguments."""
    name = call.helper.name
    if name == "tail_call":
        references.check_nothing_held(walk, "tail_call")
    elif name in ("for_each_map_elem", "timer_set_callback", "find_vma", "user_ringbuf_drain", "loop"):
        callbacks.queue(walk, call)
    elif name == "dynptr_from_mem":
        if walk.regs[1].kind != MAP_VALUE:
            denied(f"Unsupported reg type {kind_text(walk.regs[1].kind)} for bpf_dynptr_from_mem data")
    elif name == "dynptr_write":
        if dynptrs.type_of(walk, walk.regs[1]) == "skb":
            dynptrs.forget_packet_slices(walk)
    elif name == "dynptr_data":
        call.dynptr = dynptrs.identity(walk, walk.regs[1])
    elif name == "snprintf":
        _format(walk)


def _format(walk: Walk) -> None:
    text, data = walk.regs[3], walk.regs[5]
    if data.v[0] % 8:
        invalid("")
    info: MapInfo = text.obj
    contents = info.contents if info.contents is not None else bytes(info.value_size)
    place = text.off + text.v[0]
    if not formats.check(contents[place:], data.v[0] // 8):
        invalid("Invalid format string")


def _result(walk: Walk, call: Call) -> None:
    """What register 0 holds after the call."""
    ret, _, of = call.helper.ret.partition(":")
    regs = walk.regs
    if ret == "int":
        regs[0] = walk.unknown
        _bound_result(walk, call)
        return
    if ret == "void":
        return
    if ret == "map_value_or_null":
        regs[0] = _looked_up(walk, call)
    elif ret == "ringbuf_mem_or_null":
        id = _acquire(walk)
        regs[0] = Reg(MEM | RINGBUF | OR_NULL, id=id, ref=id, obj=call.mem_size)
    elif ret == "dynptr_mem_or_null":
        id, ref = call.dynptr
        regs[0] = Reg(MEM | OR_NULL, id=walk.new_id(), ref=ref, obj=call.mem_size, uid=id)
    elif ret == "btf_or_null":
        ref = call.ref
        regs[0] = Reg(BTF | OR_NULL, id=walk.new_id(), ref=ref, obj=of)
    elif ret == "kptr_or_null":
        assert call.info is not None
        assert call.field is not None
        regs[0] = kptrs.taken(walk, call.info, call.field, _acquire(walk))
    elif ret.startswith("mem_or_btf") and call.percpu is not None and call.percpu.kind & RCU:
        # One processor's part of an object that is there once per processor.
        regs[0] = Reg(BTF | ALLOC | RCU, obj=call.percpu.obj)
    elif ret in ("btf", "btf_trusted"):
        regs[0] = Reg(BTF | (TRUSTED if ret == "btf_trusted" else 0), obj=of)
    elif ret in ("mem_or_btf", "mem_or_btf_or_null"):
        assert call.percpu is not None
        regs[0] = kernel_objects.this_copy(walk, call.percpu, or_null=ret == "mem_or_btf_or_null")
    else:
        unsupported(f"the result of bpf_{call.helper.name}")


def _looked_up(walk: Walk, call: Call) -> Reg:
    info = call.info
    assert info is not None
    kind = MAP_VALUE | OR_NULL
    name = call.helper.name
    if name == "map_lookup_elem" and 0 <= call.const_key < info.max_entries and info.kind in ("ARRAY", "PERCPU_ARRAY"):
        kind = MAP_VALUE
    id = walk.new_id() if kind & OR_NULL else 0
    ref = 0
    if name == "map_lookup_elem" and info.kind in ("SOCKMAP", "SOCKHASH"):
        id = ref = references.acquire(walk, walk.index)
    return Reg(kind, id=id, ref=ref, obj=info, uid=call.map_uid)


def _bound_result(walk: Walk, call: Call) -> None:
    name = call.helper.name
    if name in ("get_task_stack", "probe_read_kernel_str", "probe_read_user_str"):
        high = scalar.signed64(call.size_bound)
        v = scalar.UNKNOWN
        v = (v[0], v[1], -_MAX_ERRNO, high, v[4], v[5], -_MAX_ERRNO, scalar.signed32(high), v[8], v[9])
        walk.regs[0] = walk.unknown.with_value(walk.domain.checked(walk.domain.sync(v)))
    elif name == "get_smp_processor_id" and walk.profile.bounds_cpu:
        high = walk.cpus - 1
        v = (0, (1 << 64) - 1, 0, high, 0, high, 0, high, 0, high)
        walk.regs[0] = walk.unknown.with_value(walk.domain.checked(walk.domain.sync(v)))



def _acquire(walk: Walk) -> int:
    """Two numbers are used up, as in the kernel: one for the nullable pointer, one for the reference."""
    walk.new_id()
    return references.acquire(walk, walk.index)
