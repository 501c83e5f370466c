"""Calls of kernel functions (kfuncs): may a socket filter call it, does every argument fit its parameter, what returns.

The rows of `pktbpf.abi.kfuncs` say what the kernel's BTF says of their prototypes. Mirrors check_kfunc_call and
check_kfunc_args; iterators and interrupt flags on the stack are in modules of their own.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from pktbpf.abi import kfuncs
from pktbpf.abi.helpers import Arg
from pktbpf.abi.kfuncs import Kfunc, Param
from pktbpf.verifier import arguments, dynptrs, iterators, kernel_objects, references
from pktbpf.verifier.branches import not_null
from pktbpf.verifier.calls import check_reserved
from pktbpf.verifier.errors import Refusal, denied, invalid, refuse, unsupported
from pktbpf.verifier.kernel_types import STRUCT, UNION
from pktbpf.verifier.precision import mark_register
from pktbpf.verifier.scalar import signed64
from pktbpf.verifier.state import (
    ALLOC,
    BASE,
    BTF,
    CTX,
    DYNPTR,
    MAP_PTR,
    MAP_VALUE,
    MEM,
    OR_NULL,
    RCU,
    RDONLY,
    SCALAR,
    SKB_SLICE,
    SLICE,
    SOCK_COMMON,
    SOCKET,
    STACK,
    TCP_SOCK,
    TRUSTED,
    UNTRUSTED,
    Reg,
    kind_text,
)

if TYPE_CHECKING:
    from pktbpf.verifier.code import Op
    from pktbpf.verifier.walk import Walk

_READ_ARG = Arg("dynptr", rdonly=True)
_STRUCTS = {SOCK_COMMON: "sock_common", SOCKET: "sock", TCP_SOCK: "tcp_sock", MAP_PTR: "bpf_map"}


class KfuncCall:
    """What the arguments of one call have said so far. constant: value of a `const` or `szk` argument. dynptr: (type,
    id, reference) of the initialised one. iterator: (frame, upper slot)."""

    __slots__ = ("constant", "dynptr", "iterator", "ref", "row")

    def __init__(self, row: Kfunc):
        self.row = row
        self.constant = 0
        self.ref = 0
        self.dynptr: tuple[str, int, int] = ("", 0, 0)
        self.iterator: tuple[int, int] = (0, 0)


def call(walk: Walk, op: Op) -> None:
    """call kernel-function"""
    walk.jumps += 1
    check_reserved(walk, op)
    if walk.state.locks:
        invalid("function calls are not allowed while holding a lock")
    name = walk.layout.kfuncs.get(walk.index)
    if name is None:
        # Number 0, left by the loader where a weak function is missing: refused unless never reached.
        walk.unresolved_calls.add(walk.index)
        walk.index += 1
        return
    row = kfuncs.BY_NAME.get(name)
    if row is None or name not in walk.profile.kfuncs:
        denied(f"calling kernel function {name} is not allowed")
    _check_callable(walk, row)
    made = KfuncCall(row)
    _arguments(walk, made)
    _regions(walk, row)
    regs = walk.regs
    regs[0:6] = [walk.unset] * 6
    _result(walk, made)
    if row.has("next"):
        iterators.step(walk, *made.iterator)
    walk.index += 1


def _check_callable(walk: Walk, row: Kfunc) -> None:
    if row.name == "__bpf_trap":
        refuse(errno.EFAULT, "unexpected __bpf_trap() due to uninitialized variable?")
    if row.name.startswith("bpf_xdp_metadata"):
        invalid("metadata kfuncs require device-bound program")
    if row.has("sleeps"):
        denied(f"program must be sleepable to call sleepable kfunc {row.name}")


# ---- arguments


def _arguments(walk: Walk, made: KfuncCall) -> None:
    params = made.row.params
    number = 0
    while number < len(params):
        number += 1
        param = params[number - 1]
        if param.kind in ("ign", "prog"):
            continue
        if param.kind in ("scalar", "const"):
            _scalar(walk, made, number, param)
            continue
        reg = walk.regs[number]
        if (made.row.has("trusted") or made.row.has("rcu")) and (reg.is_null or reg.kind & OR_NULL) and not param.null:
            denied(f"Possibly NULL pointer passed to trusted arg{number - 1}")
        if reg.ref:
            made.ref = reg.ref
        if param.null and reg.is_null and param.kind != "buf":
            continue
        paired = _paired(walk, params, number)
        _check_shape(walk, made, number, param, paired)
        arguments.check_offset(walk, reg, number)
        _check_kind(walk, made, number, param)
        number += paired


def _scalar(walk: Walk, made: KfuncCall, number: int, param: Param) -> None:
    reg = walk.regs[number]
    if reg.kind != SCALAR:
        invalid(f"R{number} is not a scalar")
    if param.kind == "const":
        _constant(walk, made, number)
        mark_register(walk, number)


def _constant(walk: Walk, made: KfuncCall, number: int) -> None:
    reg = walk.regs[number]
    if reg.v[1]:
        invalid(f"R{number} must be a known constant")
    made.constant = reg.v[0]


def _paired(walk: Walk, params: tuple[Param, ...], number: int) -> bool:
    """Whether the next argument is the size of this one: its name says so, and it must be a number."""
    return (
        number < len(params) and params[number].kind in ("sz", "szk") and walk.regs[number + 1].kind == SCALAR
    )


def _check_shape(walk: Walk, made: KfuncCall, number: int, param: Param, paired: bool) -> None:
    """A parameter that is plain memory to the kernel: only a size makes it more than one object."""
    if param.kind == "buf" and not paired:
        invalid(f"arg#{number - 1} pointer type UNKNOWN  must point to scalar, or struct with scalar")
    if param.kind == "struct" and _struct_of(walk.regs[number]) is None:
        invalid(f"arg#{number - 1} pointer type STRUCT {param.of} must point to scalar, or struct with scalar")
    if param.kind == "struct" and (made.row.has("trusted") or made.row.has("rcu")):
        _check_trust(walk, made, number)


def _check_trust(walk: Walk, made: KfuncCall, number: int) -> None:
    reg = walk.regs[number]
    if reg.ref or ((reg.kind & BASE != BTF or reg.kind & TRUSTED) and not reg.kind & ~(BASE | TRUSTED | ALLOC)):
        return
    if not made.row.has("rcu"):
        invalid(f"R{number} must be referenced or trusted")
    if not reg.kind & RCU:
        invalid(f"R{number} must be a rcu pointer")


def _check_kind(walk: Walk, made: KfuncCall, number: int, param: Param) -> None:
    reg, position = walk.regs[number], number - 1
    match param.kind:
        case "ctx":
            if reg.kind != CTX:
                invalid(f"arg#{position} expected pointer to ctx, but got {kind_text(reg.kind)}")
        case "dynptr":
            _dynptr(walk, made, number, param)
        case "iter":
            if made.row.name == "bpf_iter_css_task_new":
                invalid("css_task_iter is only allowed in bpf_lsm, bpf_iter and sleepable progs")
            made.iterator = iterators.argument(walk, made.row, number, param.of)
            if not made.row.has("new"):
                made.ref = iterators.reference(walk, *made.iterator)
            if made.row.has("destroy"):
                iterators.destroy(walk, *made.iterator, param.of)
        case "buf":
            _memory(walk, made, number, param)
        case "str":
            if reg.kind != MAP_VALUE:
                invalid(f"arg#{position} doesn't point to a const string")
            arguments.check_constant_string(walk, number)
        case "irq":
            if reg.kind != STACK:
                invalid(f"arg#{position} doesn't point to an irq flag on stack")
            (iterators.save_irq if param.uninit else iterators.restore_irq)(walk, number)
        case "lock":
            if reg.kind not in (MAP_VALUE, BTF | ALLOC):
                invalid(f"arg#{position} doesn't point to map value or allocated object")
            # A map with a lock is refused before any path is walked, so this value has none.
            arguments.field_pointer(reg, number, "res_spin_lock", "bpf_res_spin_lock")
        case "wq":
            if reg.kind != MAP_VALUE:
                invalid(f"arg#{position} doesn't point to a map value")
            arguments.field_pointer(reg, number, "wq", "bpf_wq")
            unsupported(f"{made.row.name}, whose callback runs in a work queue")
        case "map":
            if reg.kind != MAP_PTR:
                invalid(f"pointer in R{number} isn't map pointer")
        case "struct":
            _struct(walk, made, reg, number, param)
        case _:
            unsupported(f"argument {position} of {made.row.name}")


def _struct_of(reg: Reg) -> str | None:
    """The kernel structure that a register points to; None for memory that is none."""
    kind = reg.kind & BASE
    return str(reg.obj) if kind == BTF else _STRUCTS.get(kind)


def _struct(walk: Walk, made: KfuncCall, reg: Reg, number: int, param: Param) -> None:
    seen = reg if reg.kind & BASE == BTF else Reg(BTF, reg.off, obj=_struct_of(reg))
    lines = kernel_objects.mismatch(walk, seen, param.of)
    if lines is not None:
        invalid(
            *lines,
            f"kernel function {made.row.name} args#{number - 1} expected pointer to STRUCT {param.of} but R{number} "
            f"has a pointer to STRUCT {_struct_of(reg)}"
        )


def _dynptr(walk: Walk, made: KfuncCall, number: int, param: Param) -> None:
    reg = walk.regs[number]
    if reg.kind not in (STACK, DYNPTR):
        invalid(f"arg#{number - 1} expected pointer to stack or const struct bpf_dynptr")
    if param.uninit:
        parent, _, ref = made.dynptr
        dynptrs.argument(walk, number, Arg("dynptr", of=param.of or parent, uninit=True), ref=ref)
        return
    dynptrs.argument(walk, number, _READ_ARG)
    made.dynptr = (dynptrs.type_of(walk, reg), *dynptrs.identity(walk, reg))


def _memory(walk: Walk, made: KfuncCall, number: int, param: Param) -> None:
    """Memory and its size: both read and write must be allowed."""
    reg = walk.regs[number]
    constant = made.row.params[number].kind == "szk"
    if not (reg.is_null and param.null):
        try:
            if reg.kind & OR_NULL:
                walk.regs[number] = not_null(reg)
            for write in (False, True):
                arguments.check_sized(walk, number, write=write)
        except Refusal as problem:
            if not problem.unsupported:
                problem.lines += (f"arg#{number - 1} arg#{number} memory, len pair leads to invalid memory access",)
            raise
        walk.regs[number] = reg
    if constant:
        _constant(walk, made, number + 1)


# ---- effects and results


def _regions(walk: Walk, row: Kfunc) -> None:
    """RCU read-side and preemption-disabled regions."""
    state, name = walk.state, row.name
    if name == "bpf_rcu_read_lock":
        if state.rcu:
            invalid(f"nested rcu read lock (kernel function {name})")
        state.rcu = True
    elif name == "bpf_rcu_read_unlock":
        if not state.rcu:
            invalid(f"unmatched rcu read unlock (kernel function {name})")
        state.rcu = False
        references.every_register(state, _without_rcu)
        iterators.leave_rcu(state)
    elif name == "bpf_preempt_disable":
        state.preempt += 1
    elif name == "bpf_preempt_enable":
        if not state.preempt:
            invalid(f"unmatched attempt to enable preemption (kernel function {name})")
        state.preempt -= 1


def _without_rcu(reg: Reg) -> Reg:
    """After the region its pointers may dangle."""
    if not reg.kind & RCU:
        return reg
    return reg.with_kind(reg.kind & ~(RCU | OR_NULL) | UNTRUSTED)


def _result(walk: Walk, made: KfuncCall) -> None:
    kind, _, of = made.row.ret.partition(":")
    regs = walk.regs
    if kind == "void":
        return
    if kind in ("int", "null"):
        regs[0] = walk.unknown
        return
    if kind == "mem":
        found = Reg(MEM | RDONLY, obj=int(of), ref=made.ref)
    elif kind == "slice":
        found = _slice(walk, made)
    elif kind == "kern_ctx":
        found = Reg(BTF | TRUSTED, obj="sk_buff")
    elif kind == "rdonly_cast":
        found = _cast(walk, made.constant)
    elif kind == "struct":
        # A socket filter never sleeps, so it stands in an RCU read-side region without asking for one.
        trust = UNTRUSTED if made.row.name == "bpf_get_kmem_cache" else RCU
        found = Reg(BTF | trust, obj=of)
    else:
        unsupported(f"the result of {made.row.name}")
    if made.row.has("null"):
        found = Reg(found.kind | OR_NULL, 0, found.v, walk.new_id(), found.ref, 0, found.obj, found.uid)
    regs[0] = found


def _cast(walk: Walk, number: int) -> Reg:
    """What bpf_rdonly_cast makes of a type's number."""
    kernel = walk.kernel
    if not number & 0xFFFFFFFF:
        return Reg(MEM | RDONLY | UNTRUSTED, obj=0)
    if kernel is None:
        unsupported("bpf_rdonly_cast, whose type is a number in the kernel's BTF")
    if number & 0xFFFFFFFF >= len(kernel.types):
        invalid(f"Unknown type ID {signed64(number)} passed to kfunc bpf_rdonly_cast")
    number &= 0xFFFFFFFF
    if kernel.types.type(number).kind not in (STRUCT, UNION):
        invalid("kfunc bpf_rdonly_cast type ID argument must be of a struct or void")
    return kernel_objects.pointer(kernel, number, UNTRUSTED)


def _slice(walk: Walk, made: KfuncCall) -> Reg:
    parent, id, _ = made.dynptr
    if made.row.name == "bpf_dynptr_slice_rdwr":
        invalid("the prog does not allow writes to packet data")
    flavour = SKB_SLICE if parent == "skb" else SLICE
    return Reg(MEM | RDONLY | flavour, obj=made.constant & 0xFFFFFFFF, uid=id)
