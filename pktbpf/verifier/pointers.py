"""Arithmetic on pointers: which is allowed, what becomes of offset and range, and the limits set against speculation.

A pointer plus or minus a scalar stays a pointer with a fixed or a variable offset; nearly everything else is refused.
Without CAP_PERFMON the result must stay inside the object and the masking that the kernel will add must be the same on
every path. Mirrors adjust_ptr_min_max_vals and sanitize_ptr_alu.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NamedTuple

from pktbpf.verifier import memory, scalar, tnum
from pktbpf.verifier.errors import Refusal, denied, invalid
from pktbpf.verifier.scalar import S64_MAX, S64_MIN, Scalar
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
    OR_NULL,
    STACK,
    STACK_LIMIT,
    UNTRUSTED,
    Reg,
    kind_text,
)

if TYPE_CHECKING:
    from pktbpf.verifier.code import Op
    from pktbpf.verifier.walk import Walk

LIMIT = 1 << 29
_MOVABLE = (CTX, MAP_VALUE, MAP_KEY, STACK, BTF, MEM, FUNC, DYNPTR)
_PROHIBITED = "pointer arithmetic with it prohibited for !root"
_SYMBOL = {
    "ADD": "+=", "SUB": "-=", "MUL": "*=", "DIV": "/=", "OR": "|=", "AND": "&=", "LSH": "<<=", "RSH": ">>=",
    "MOD": "%=", "XOR": "^=", "ARSH": "s>>=",
}  # fmt: skip


def symbol(operation: str) -> str:
    """The operator in the kernel's messages."""
    return _SYMBOL[operation]


def _sane(v: Scalar, off: int, kind: int) -> None:
    """Offsets beyond half a gigabyte are refused before they can overflow."""
    text = kind_text(kind)
    value = scalar.signed64(v[0])
    if not v[1] and not -LIMIT < value < LIMIT:
        invalid(f"math between {text} pointer and {value} is not allowed")
    if not -LIMIT < off < LIMIT:
        invalid(f"{text} pointer offset {off} is not allowed")
    if v[2] == S64_MIN:
        invalid(f"math between {text} pointer and register with unbounded min value is not allowed")
    if not -LIMIT < v[2] < LIMIT:
        invalid(f"value {v[2]} makes {text} pointer be out of bounds")


def adjust(walk: Walk, op: Op, pointer: Reg, amount: Reg) -> None:
    """dst = pointer op amount, one of the two being dst. Fails with EACCES or EINVAL."""
    regs, dst = walk.regs, op.dst
    v = amount.v
    if (not v[1] and (v[2] != v[3] or v[4] != v[5])) or v[2] > v[3] or v[4] > v[5]:
        regs[dst] = walk.unknown
        return
    operation = op.name
    if op.bits != 64:
        if operation == "SUB" and walk.leaks_pointers:
            regs[dst] = walk.unknown
            return
        denied(f"R{dst} 32-bit pointer arithmetic prohibited")
    kind = pointer.kind
    if kind & OR_NULL:
        denied(f"R{dst} pointer arithmetic on {walk.words.kind(kind)} prohibited, null-check it first")
    base = kind & BASE
    if base == MEM and kind & UNTRUSTED:
        return
    if base not in _MOVABLE and not (base == MAP_PTR and not v[1] and v[2] == 0 and operation == "ADD"):
        denied(f"R{dst} pointer arithmetic on {walk.words.kind(kind)} prohibited")
    _sane(v, amount.off, kind)
    _sane(pointer.v, pointer.off, kind)
    window = _Window() if operation in ("ADD", "SUB") else None
    pointer_is_dst = pointer is regs[dst]
    if window is not None:
        _mask(walk, op, pointer, amount, pointer_is_dst, window, commit=False)
    if operation == "ADD":
        result = _plus(pointer, regs[dst], v)
    elif operation == "SUB":
        result = _minus(dst, pointer, v, pointer_is_dst)
    elif operation in ("AND", "OR", "XOR"):
        denied(f"R{dst} bitwise operator {_SYMBOL[operation]} on pointer prohibited")
    else:
        denied(f"R{dst} pointer arithmetic with {_SYMBOL[operation]} operator prohibited")
    _sane(result.v, result.off, kind)
    result = result.with_value(walk.domain.sync(result.v))
    regs[dst] = result
    _stay_inside(walk, dst, result)
    if window is not None:
        _mask(walk, op, result, amount, True, window, commit=True)


def _moved(pointer: Reg, dst: Reg, off: int, v: Scalar) -> Reg:
    """The pointer in its new place; frame, reference and precision are the target register's, as in the kernel."""
    return Reg(pointer.kind, off, v, pointer.id, dst.ref, dst.frame, pointer.obj, pointer.uid, dst.precise)


def _no_halves(v: Scalar) -> Scalar:
    """Pointers carry no 32-bit bounds."""
    return (*v[:6], scalar.S32_MIN, scalar.S32_MAX, 0, tnum.M32)


def _plus(pointer: Reg, dst: Reg, v: Scalar) -> Reg:
    p = pointer.v
    if not v[1] and -(1 << 31) <= pointer.off + v[2] < 1 << 31:
        return _moved(pointer, dst, pointer.off + v[2], _no_halves(p))
    low, high = p[2] + v[2], p[3] + v[3]
    if low < S64_MIN or low > S64_MAX or high < S64_MIN or high > S64_MAX:
        low, high = S64_MIN, S64_MAX
    ulow, uhigh = p[4] + v[4], p[5] + v[5]
    if ulow > tnum.M64 or uhigh > tnum.M64:
        ulow, uhigh = 0, tnum.M64
    value, mask = tnum.add((p[0], p[1]), (v[0], v[1]))
    return _moved(pointer, dst, pointer.off, _no_halves((value, mask, low, high, ulow, uhigh, 0, 0, 0, 0)))


def _minus(dst: int, pointer: Reg, v: Scalar, pointer_is_dst: bool) -> Reg:
    if not pointer_is_dst:
        denied(f"R{dst} tried to subtract pointer from scalar")
    if pointer.kind == STACK:
        denied(f"R{dst} subtraction from stack pointer prohibited")
    p = pointer.v
    if not v[1] and -(1 << 31) <= pointer.off - v[2] < 1 << 31:
        return _moved(pointer, pointer, pointer.off - v[2], _no_halves(p))
    low, high = p[2] - v[3], p[3] - v[2]
    if low < S64_MIN or low > S64_MAX or high < S64_MIN or high > S64_MAX:
        low, high = S64_MIN, S64_MAX
    ulow, uhigh = (0, tnum.M64) if p[4] < v[5] else (p[4] - v[5], p[5] - v[4])
    value, mask = tnum.sub((p[0], p[1]), (v[0], v[1]))
    return _moved(pointer, pointer, pointer.off, _no_halves((value, mask, low, high, ulow, uhigh, 0, 0, 0, 0)))


def _stay_inside(walk: Walk, dst: int, reg: Reg) -> None:
    """Without CAP_PERFMON the result must still point into its object."""
    if walk.bypass_v1:
        return
    if reg.kind == STACK:
        off = reg.off + scalar.signed64(reg.v[0])
        if reg.v[1]:
            denied(
                f"R{dst} variable stack access prohibited for !root, var_off={walk.words.tnum(reg.v)} "
                f"off={scalar.signed32(off)}"
            )
        if off >= 0 or off < -STACK_LIMIT:
            denied(f"R{dst} stack pointer arithmetic goes out of range, prohibited for !root; off={off}")
    elif reg.kind == MAP_VALUE:
        try:
            memory.check_map_value(walk, dst, reg.off, 1, zero_allowed=False, direct=False)
        except Refusal as problem:
            denied(*problem.lines, f"R{dst} pointer arithmetic of map value goes out of range, prohibited for !root")


class Masking(NamedTuple):
    """How the kernel will mask one addition: flags and limit, the same on every path."""

    flags: int
    limit: int


_SRC, _DST, _NEGATIVE, _IMMEDIATE, _NON_POINTER = 1, 2, 4, 8, 16


class _Window:
    """What the first half of the check leaves for the second."""

    __slots__ = ("masking", "to_left")

    def __init__(self) -> None:
        self.masking = Masking(0, 0)
        self.to_left = False


def _limit(pointer: Reg, to_left: bool) -> int | str:
    """How far the pointer may move, or why that cannot be said."""
    if pointer.kind == STACK:
        largest = STACK_LIMIT + to_left
        limit = -(pointer.v[0] + pointer.off)
    elif pointer.kind == MAP_VALUE:
        largest = pointer.obj.value_size
        limit = (pointer.v[2] if to_left else pointer.v[5]) + pointer.off
    else:
        return "type"
    limit &= tnum.M32
    return "limit" if limit >= largest else limit


def _skips_masking(walk: Walk, op: Op) -> bool:
    return walk.bypass_v1 or not op.reg or bool(walk.nospec[walk.index])


def _mask(
    walk: Walk, op: Op, pointer: Reg, amount: Reg, pointer_is_dst: bool, window: _Window, *, commit: bool
) -> None:
    """Agree with earlier paths on the masking of this instruction and explore what happens when it takes effect."""
    if _skips_masking(walk, op):
        return
    exact = not amount.v[1]
    negative = amount.v[2] < 0
    if not walk.state.speculative:
        if not commit:
            if not exact and negative != (amount.v[3] < 0):
                _complain(walk, op, "bounds", amount)
            window.to_left = negative if op.name == "ADD" else not negative
        limit = _limit(pointer, window.to_left)
        if isinstance(limit, str):
            _complain(walk, op, limit, amount)
            return
        if commit:
            masking = Masking(window.masking.flags, abs(scalar.signed32(window.masking.limit - limit)))
            remember(walk, op, masking)
        else:
            flags = (_NEGATIVE if negative else 0) | (_IMMEDIATE if exact else 0) | (_SRC if pointer_is_dst else _DST)
            if not exact:
                walk.explore_limits = True
            window.masking = Masking(flags, limit)
    if commit or exact:
        return
    _explore(walk, op, pointer, pointer_is_dst)


def _explore(walk: Walk, op: Op, pointer: Reg, pointer_is_dst: bool) -> None:
    """Queue the path on which the masked amount is zero."""
    regs, dst = walk.regs, op.dst
    saved = regs[dst]
    # The kernel has forgotten the 32-bit bounds of the target by now, and not yet found them again.
    regs[dst] = pointer.with_value(_no_halves(pointer.v)) if pointer_is_dst else pointer
    if walk.branch(walk.index + 1, walk.index, speculative=True) is None:
        walk.too_complex(errno.ENOMEM, "", f"R{dst} could not be pushed for speculative verification, {_PROHIBITED}")
    regs[dst] = saved


def remember(walk: Walk, op: Op, masking: Masking) -> None:
    """Record the masking of the current instruction; another path must not want another."""
    known = walk.masking.get(walk.index)
    if known is not None and known != masking:
        _complain(walk, op, "paths", None)
    walk.masking[walk.index] = masking


def remember_scalar(walk: Walk, op: Op) -> None:
    """An addition of two scalars: it must not be one of pointers on another path."""
    if not _skips_masking(walk, op):
        remember(walk, op, Masking(_NON_POINTER, 0))


def _complain(walk: Walk, op: Op, reason: str, amount: Reg | None) -> None:
    dst, src = op.dst, op.src
    amount_in_dst = amount is not None and amount is walk.regs[dst] and not walk.profile.names_target
    word = "add" if op.name == "ADD" else "sub"
    if reason == "bounds":
        denied(f"R{dst if amount_in_dst else src} has unknown scalar with mixed signed bounds, {_PROHIBITED}")
    if reason == "type":
        denied(f"R{src if amount_in_dst else dst} has pointer with unsupported alu operation, {_PROHIBITED}")
    if reason == "limit":
        denied(f"R{dst} tried to {word} beyond pointer bounds, {_PROHIBITED}")
    denied(f"R{dst} tried to {word} from different maps, paths or scalars, {_PROHIBITED}")
