"""Reads and writes of the stack: bounds, spills and fills of registers, dynptr slots, access at a variable offset.

Offsets are from the frame pointer, -512 to -1. Every function takes the walk, changes its current state, records stack
accesses in the history for precision and in the liveness marks for pruning, and stops with the kernel's errno and words
where the rule is broken. Mirrors check_stack_read, check_stack_write and check_stack_range_initialized.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from pktbpf.verifier import scalar
from pktbpf.verifier.errors import denied, invalid, refuse
from pktbpf.verifier.precision import mark_register
from pktbpf.verifier.state import (
    BASE,
    DYNPTR,
    DYNPTR_BYTE,
    EMPTY,
    INVALID,
    IRQ_BYTE,
    ITER_BYTE,
    MISC,
    NOT_INIT,
    SCALAR,
    SPILL,
    STACK,
    STACK_LIMIT,
    ZERO_BYTE,
    Frame,
    Reg,
    Slot,
    spilled,
    spilled_scalar,
)

if TYPE_CHECKING:
    from pktbpf.verifier.walk import Walk

MAX_VARIABLE_OFFSET = 1 << 29
_WHOLE = SPILL * 8


def grow(walk: Walk, frame: Frame, size: int) -> None:
    """Make room for `size` bytes below the frame pointer and remember the deepest use of the function."""
    slots = (size + 7) // 8
    missing = slots - len(frame.stack)
    if missing > 0:
        frame.stack += [EMPTY] * missing
        function = walk.layout.functions[frame.subprog]
        if function.stack < slots * 8:
            function.stack = slots * 8


def check_bounds(walk: Walk, number: int, offset: int, size: int, write: bool, helper: bool = False) -> None:
    """The bytes from register `number` + offset lie inside the stack; grows it. Fails with EACCES or EINVAL."""
    reg = walk.regs[number]
    frame = walk.state.frames[reg.frame]
    word = " indirect access to" if helper else " write to" if write else " read from"
    v = reg.v
    if not v[1]:
        low = scalar.signed64(v[0]) + offset
        high = low + size
    else:
        if v[3] >= MAX_VARIABLE_OFFSET or v[2] <= -MAX_VARIABLE_OFFSET:
            denied(f"invalid unbounded variable-offset{word} stack R{number}")
        low = v[2] + offset
        high = v[3] + offset + size
    below = walk.reads_unwritten_stack and walk.profile.reads_below
    deepest = -STACK_LIMIT if write or below else -8 * len(frame.stack)
    number_of_error = 0
    if low < deepest or low > -1:
        number_of_error = errno.EACCES
    elif high > 0:
        number_of_error = errno.EINVAL
    elif size < 0:
        number_of_error = errno.EFAULT
    if number_of_error:
        if not v[1]:
            refuse(number_of_error, f"invalid{word} stack R{number} off={offset} size={size}")
        refuse(
            number_of_error,
            f"invalid variable-offset{word} stack R{number} var_off={walk.words.tnum(v)}"
            f"{walk.words.offset(offset)} size={size}",
        )
    grow(walk, frame, -low)


def _without_misc(types: str) -> str:
    """The letters below a partial spill: written ones hold anything now, zeros (since 6.8) stay."""
    return "".join(letter if letter in (ZERO_BYTE, INVALID) else MISC for letter in types)


def _scrubbed(types: str) -> str:
    return "".join(INVALID if letter == INVALID else MISC for letter in types)


def destroy_dynptr(walk: Walk, frame: Frame, slot: int) -> None:
    """A write into a dynptr on the stack ends it, both slots; a referenced one must not be overwritten."""
    if slot >= len(frame.stack) or slot < 0 or frame.stack[slot][0][0] != DYNPTR_BYTE:
        return
    reg = frame.stack[slot][1]
    assert reg is not None
    if not reg.obj[1]:
        slot += 1
        reg = frame.stack[slot][1]
        assert reg is not None
    if reg.obj[0] == "ringbuf":
        invalid("cannot overwrite referenced dynptr")
    frame.stack[slot] = frame.stack[slot - 1] = EMPTY
    walk.invalidate_slices(reg.id)
    walk.live.write(frame.number, 1 << slot | 1 << slot - 1)


def write(walk: Walk, number: int, offset: int, size: int, source: int, zero: bool, constant: int | None) -> None:
    """Store register `source` (-1: none) or the immediate `constant` (None: anything) at register `number` + offset."""
    reg = walk.regs[number]
    frame = walk.state.frames[reg.frame]
    if not reg.v[1]:
        _write_fixed(walk, frame, offset + scalar.signed64(reg.v[0]), size, source, constant)
    else:
        _write_variable(walk, frame, reg, offset, size, source, zero, constant)


def _spillable(reg: Reg) -> bool:
    return reg.kind & BASE not in (NOT_INIT, SCALAR, DYNPTR)


def _write_fixed(
    walk: Walk, frame: Frame, offset: int, size: int, source: int, constant: int | None
) -> None:
    low = -offset - 1
    position = low >> 3
    slot = frame.stack[position]
    pointer = not (spilled_scalar(slot) and walk.profile.overwrites_scalars)
    if not walk.leaks_pointers and size != 8 and spilled(slot) and pointer:
        denied("attempt to corrupt spilled pointer on stack")
    reg = walk.regs[source] if source >= 0 else None
    if not walk.bypass_v4:
        _fence_store(walk, slot, reg, low, size)
    destroy_dynptr(walk, frame, position)
    slot = frame.stack[position]
    aligned = not offset & 7
    if aligned and size == 8:
        walk.live.write(frame.number, 1 << position)
    walk.touch_fastcall(frame, offset)
    if reg is not None and aligned and reg.kind == SCALAR and walk.capable and _kept(walk, reg):
        _spill_scalar(walk, frame, position, source, reg, size)
    elif reg is None and constant is not None and aligned and walk.capable and (constant or walk.profile.zero_spills):
        _save(walk, frame, position, Reg(SCALAR, v=scalar.exact(constant)), size)
    elif reg is not None and _spillable(reg):
        if size != 8:
            denied("invalid size of register spill")
        if frame is not walk.state.frames[-1] and reg.kind == STACK:
            invalid("cannot spill pointers to stack into stack frame of the caller")
        _save(walk, frame, position, reg, size)
    else:
        _plain_write(walk, frame, position, low, size, source, reg, constant)
        return
    walk.record(access=(frame.number, position))


def _fence_store(walk: Walk, slot: Slot, reg: Reg | None, low: int, size: int) -> None:
    """Stores that a later load might bypass speculatively get a barrier after them: not over bytes of plain data."""
    if not walk.profile.fences:
        return
    overwritten = [slot[0][(low - byte) & 7] for byte in range(size)]
    if (reg is not None and _spillable(reg)) or any(letter not in (MISC, ZERO_BYTE) for letter in overwritten):
        walk.nospec_result[walk.index] = 1


def _save(walk: Walk, frame: Frame, position: int, reg: Reg, size: int) -> None:
    if size == 8:
        frame.stack[position] = (_WHOLE, reg)
        return
    below = frame.stack[position][0][: 8 - size]
    below = _without_misc(below) if walk.profile.zero_spills else _scrubbed(below)
    frame.stack[position] = (below + SPILL * size, reg)


def _kept(walk: Walk, reg: Reg) -> bool:
    """Whether a spilled scalar is tracked as a register: any since 6.9, before only ranges that say something."""
    if walk.profile.unbounded_spills:
        return True
    return reg.v != scalar.UNKNOWN and (walk.profile.zero_spills or not reg.is_null)


def _spill_scalar(walk: Walk, frame: Frame, position: int, source: int, reg: Reg, size: int) -> None:
    if reg.v[5].bit_length() <= 8 * size:
        if walk.profile.unbounded_spills:
            reg = walk.link(source)
        _save(walk, frame, position, reg, size)
    else:
        # A narrowing spill is not the same value any more.
        _save(walk, frame, position, reg.with_id(0, reg.off), size)


def _plain_write(
    walk: Walk, frame: Frame, position: int, low: int, size: int, source: int, reg: Reg | None, constant: int | None
) -> None:
    """Data that is not tracked as a register: bytes become zero or anything."""
    types, spill = frame.stack[position]
    if types[7] in (SPILL, DYNPTR_BYTE, ITER_BYTE, IRQ_BYTE):
        types = _scrubbed(types)
    letter = MISC
    if (reg is not None and reg.is_null) or (reg is None and constant == 0):
        if reg is not None:
            mark_register(walk, source)
        letter = ZERO_BYTE
    first = (low & 7) - size + 1
    types = types[:first] + letter * size + types[first + size :]
    frame.stack[position] = (types, None if spill is None else spill.with_kind(NOT_INIT))


def _write_variable(
    walk: Walk, frame: Frame, pointer: Reg, offset: int, size: int, source: int, zero: bool, constant: int | None
) -> None:
    """A store somewhere in a range: every byte of it may be the one written."""
    low, high = pointer.v[2] + offset, pointer.v[3] + offset + size
    reg = walk.regs[source] if source >= 0 else None
    null = constant == 0 and walk.profile.zero_spills if reg is None else reg.is_null
    writes_zero = null or zero
    for byte in range(low, high):
        destroy_dynptr(walk, frame, (-byte - 1) >> 3)
    walk.touch_fastcall(frame, low)
    kept_zero = False
    for byte in range(low, high):
        place = -byte - 1
        types, spill = frame.stack[place >> 3]
        letter = types[place & 7]
        if not walk.leaks_pointers and letter not in (MISC, ZERO_BYTE):
            invalid(f"spilled ptr in range of var-offset stack write; insn {walk.index}, ptr off: {byte}")
        if writes_zero and letter == SPILL and spill is not None and spill.is_null and walk.profile.zero_spills:
            kept_zero = True
            continue
        new = MISC
        if writes_zero and letter == ZERO_BYTE:
            new, kept_zero = ZERO_BYTE, True
        if letter == INVALID and not walk.reads_unwritten_stack:
            invalid(
                f"uninit stack in range of var-offset write prohibited for !root; insn {walk.index}, off: {byte}"
            )
        index = place & 7
        if letter == SPILL and walk.profile.scrubs_varying:
            types = types.replace(SPILL, MISC)
        frame.stack[place >> 3] = (
            types[:index] + new + types[index + 1 :],
            None if spill is None else spill.with_kind(NOT_INIT),
        )
    if kept_zero and source >= 0:
        mark_register(walk, source)


def read(walk: Walk, number: int, offset: int, size: int, target: int) -> None:
    """Load into register `target` (-1: nowhere) from register `number` + offset."""
    reg = walk.regs[number]
    frame = walk.state.frames[reg.frame]
    if not reg.v[1]:
        _read_fixed(walk, frame, offset + scalar.signed64(reg.v[0]), size, target)
        return
    if target < 0:
        denied(
            f"variable offset stack pointer cannot be passed into helper function; var_off={walk.words.tnum(reg.v)} "
            f"off={offset} size={size}"
        )
    check_range(walk, number, offset, size, zero_allowed=False, write=False, direct=True)
    reg = walk.regs[number]
    low, high = reg.v[2] + offset, reg.v[3] + offset
    _load_bytes(walk, frame, low, high + size, target)
    walk.touch_fastcall(frame, low)


def _load_bytes(walk: Walk, frame: Frame, low: int, high: int, target: int) -> None:
    """A register from bytes that are not one whole spill: zero if all are, anything else."""
    stack = frame.stack
    zero = all(stack[(-byte - 1) >> 3][0][(-byte - 1) & 7] == ZERO_BYTE for byte in range(low, high))
    walk.regs[target] = walk.zero if zero else walk.unknown


def _read_fixed(walk: Walk, frame: Frame, offset: int, size: int, target: int) -> None:
    low = -offset - 1
    position = low >> 3
    walk.touch_fastcall(walk.state.frames[-1], offset)
    walk.live.read(walk.state, frame.number, walk.index, 1 << position)
    types, spill = frame.stack[position]
    if types[7] == SPILL:
        assert spill is not None
        whole = types == _WHOLE
        if size == 8 and whole:
            if target >= 0:
                walk.regs[target] = spill
            elif not walk.leaks_pointers and spill.kind != SCALAR:
                denied(f"leaking pointer from stack off {offset}")
            walk.record(access=(frame.number, position))
            return
        if spill.kind != SCALAR:
            denied("invalid size of register fill")
        if target < 0:
            return
        if _partial_fill(walk, types, spill, offset, size, target):
            walk.record(access=(frame.number, position))
        return
    _require_written(walk, types, low, offset, size)
    if target >= 0:
        _load_bytes(walk, frame, offset, offset + size, target)


def _require_written(walk: Walk, types: str, low: int, offset: int, size: int) -> None:
    for byte in range(size):
        letter = types[(low - byte) & 7]
        if letter in (MISC, ZERO_BYTE) or (letter == INVALID and walk.reads_unwritten_stack):
            continue
        denied(f"invalid read from stack off {offset}+{byte} size {size}")


def _partial_fill(walk: Walk, types: str, spill: Reg, offset: int, size: int, target: int) -> bool:
    """Part of a spilled scalar; True when precision must follow the value into the slot."""
    spill_size = len(types) - len(types.rstrip(SPILL))
    narrow = walk.profile.narrow_fills
    if (size <= spill_size if narrow else size == spill_size) and not offset & 7:
        # The low bytes of the spill, read from where it starts.
        keep = not narrow or spill.v[5].bit_length() <= 8 * size
        walk.regs[target] = spill if keep else spill.with_id(0)
        return True
    low = -offset - 1
    letters = [types[(low - byte) & 7] for byte in range(size)]
    for byte, letter in enumerate(letters):
        if letter in (SPILL, MISC) or (letter == ZERO_BYTE and narrow):
            continue
        if letter == INVALID and walk.reads_unwritten_stack:
            continue
        denied(f"invalid read from stack off {offset}+{byte} size {size}")
    if not narrow:
        walk.regs[target] = walk.unknown
        return False
    if letters.count(SPILL) == size and spill.is_null:
        walk.regs[target] = walk.zero
        return True
    walk.regs[target] = walk.zero if letters.count(ZERO_BYTE) == size else walk.unknown
    return False


def check_range(
    walk: Walk, number: int, offset: int, size: int, *, zero_allowed: bool, write: bool, raw: bool = False,
    direct: bool = False,
) -> bool:
    """A helper reads (or writes) `size` bytes at register `number` + offset: all must be initialised.

    raw: the memory may be uninitialised, the helper fills it; True is returned when the caller has to mark the bytes as
    written after the call (never at a variable offset). direct: no helper, but a load at a variable offset.
    """
    if size == 0 and not zero_allowed:
        denied("invalid zero-sized read")
    # Before 6.13 a helper was taken to write whatever it is given.
    unsure = not direct and not walk.profile.stack_access_kinds
    write = write or unsure
    extra = " indirect" if unsure else ""
    # The oldest kernels do not let a helper read what was never reached, whatever the privilege.
    known = STACK_LIMIT if walk.profile.reads_below else 8 * len(walk.state.frames[walk.regs[number].frame].stack)
    check_bounds(walk, number, offset, size, write, unsure)
    reg = walk.regs[number]
    frame = walk.state.frames[reg.frame]
    variable = bool(reg.v[1])
    if not variable:
        low = high = scalar.signed64(reg.v[0]) + offset
    else:
        if not walk.bypass_v1:
            denied(
                f"R{number}{extra} variable offset stack access prohibited for !root, var_off={walk.words.tnum(reg.v)}"
            )
        raw = False
        low, high = reg.v[2] + offset, reg.v[3] + offset
    if raw:
        for byte in range(low, high + size):
            place = -byte - 1
            if place < 8 * len(frame.stack) and frame.stack[place >> 3][0][place & 7] == DYNPTR_BYTE:
                denied(f"potential write to dynptr at off={byte} disallowed")
        return True
    _check_bytes(walk, number, frame, low, high + size, size, write, extra, known)
    return False


def _check_bytes(
    walk: Walk, number: int, frame: Frame, low: int, end: int, size: int, write: bool, extra: str, known: int
) -> None:
    reg = walk.regs[number]
    read = 0
    for byte in range(low, end):
        place = -byte - 1
        position = place >> 3
        if 8 * len(frame.stack) <= place:
            refuse(errno.EFAULT, "allocated_stack too small")
        types, spill = frame.stack[position]
        letter = types[place & 7]
        if letter == ZERO_BYTE or (letter == INVALID and walk.reads_unwritten_stack and place < known):
            if write:
                index = place & 7
                frame.stack[position] = (types[:index] + MISC + types[index + 1 :], spill)
        elif letter != MISC:
            if not spilled((types, spill)) or spill is None or not (spill.kind == SCALAR or walk.leaks_pointers):
                walk.live.read(walk.state, reg.frame, walk.index, read)
                if reg.v[1]:
                    where = f"var_off {walk.words.tnum(reg.v)}"
                    denied(f"invalid{extra} read from stack R{number} {where}+{byte - low} size {size}")
                denied(f"invalid{extra} read from stack R{number} off {low}+{byte - low} size {size}")
            if write:
                frame.stack[position] = (_scrubbed(types), walk.unknown)
        read |= 1 << position
    if read:
        walk.live.read(walk.state, reg.frame, walk.index, read)
