"""Registers and states in the wording of the verifier's log. Mirrors print_reg_state and print_verifier_state."""

from __future__ import annotations

from pktbpf.verifier import tnum
from pktbpf.verifier.scalar import S32_MAX, S32_MIN, S64_MAX, S64_MIN, Scalar, signed64
from pktbpf.verifier.state import (
    ADD_CONST,
    BASE,
    BTF,
    DYNPTR,
    DYNPTR_BYTE,
    INVALID,
    ITER_BYTE,
    MAP_KEY,
    MAP_PTR,
    MAP_VALUE,
    MEM,
    NOT_INIT,
    SCALAR,
    SPILL,
    STACK,
    Frame,
    Reg,
    State,
    kind_text,
)
from pktbpf.verifier.tnum import M32, M64

# Names and positions of the ranges in the order of print; the limit that says nothing.
_RANGES = (
    ("smin", 2, S64_MIN), ("smax", 3, S64_MAX), ("umin", 4, 0), ("umax", 5, M64),
    ("smin32", 6, S32_MIN), ("smax32", 7, S32_MAX), ("umin32", 8, 0), ("umax32", 9, M32),
)  # fmt: skip


def signed_text(value: int) -> str:
    """Decimal where it is short, else hexadecimal."""
    return str(value) if -32768 <= value <= 32767 else hex(value & M64)


def unsigned_text(value: int) -> str:
    """Decimal up to 65535, else hexadecimal."""
    return str(value) if value <= 0xFFFF else hex(value)


def _shown(name: str, value: int) -> int:
    """A signed half that is not short prints, and compares, as an unsigned one."""
    return value if name[0] == "u" or not name.endswith("32") or -32768 <= value <= 32767 else value & M32


def ranges_text(v: Scalar) -> list[str]:
    """`smin=umin=4`, `smax=15`, `var_off=(0x0; 0xf)`: only what says something; equal bounds are joined."""
    values = [(name, _shown(name, v[index]), v[index] == empty) for name, index, empty in _RANGES]
    out: list[str] = []
    done: set[int] = set()
    for position, (name, value, omit) in enumerate(values):
        if omit or position in done:
            continue
        negative = name[0] == "s" and value < 0
        names = [name]
        for other in range(position + 2, len(values), 2):
            other_name, found, other_omit = values[other]
            if other_omit or other in done or found != value or (other_name[0] == "s" and found < 0) != negative:
                continue
            names.append(other_name)
            done.add(other)
        out.append("=".join([*names, signed_text(value) if name[0] == "s" else unsigned_text(value)]))
    if v[1] != M64:
        out.append(f"var_off={tnum.text((v[0], v[1]))}")
    return out


def reg_text(reg: Reg, frame: int) -> str:
    """One register, as seen from frame `frame`."""
    if reg.kind == SCALAR:
        prefix = "P" if reg.precise else ""
        if not reg.v[1]:
            return prefix + signed_text(signed64(reg.v[0]))
        return f"{prefix}scalar({','.join([*_link_text(reg), *ranges_text(reg.v)])})"
    name = kind_text(reg.kind)
    if reg.kind == STACK:
        name += f"[{reg.frame}]" if reg.frame != frame else ""
        if not reg.v[1]:
            return name + signed_text(reg.off + signed64(reg.v[0]))
    if reg.kind & BASE == BTF:
        name += str(reg.obj)
    return f"{name}({','.join(_pointer_parts(reg))})"


def _link_text(reg: Reg) -> list[str]:
    if not reg.id:
        return []
    delta = f"{reg.off:+d}" if reg.id & ADD_CONST else ""
    return [f"id={reg.id & ~ADD_CONST}{delta}"]


def _pointer_parts(reg: Reg) -> list[str]:
    parts = _link_text(reg)
    if reg.ref:
        parts.append(f"ref_obj_id={reg.ref}")
    base = reg.kind & BASE
    if base in (MAP_VALUE, MAP_KEY, MAP_PTR):
        parts += [f"map={reg.obj.name}"] if reg.obj.name else []
        parts.append(f"ks={reg.obj.key_size},vs={reg.obj.value_size}")
    if reg.off:
        parts.append(f"off={signed_text(reg.off)}")
    if base == MEM:
        parts.append(f"sz={unsigned_text(reg.obj)}")
    if reg.kind == DYNPTR:
        parts.append(f"type={reg.obj[0]}")
    if reg.v[1]:
        parts += ranges_text(reg.v)
    elif reg.v[0]:
        parts.append(f"imm={signed_text(signed64(reg.v[0]))}")
    return parts


def frame_text(state: State, number: int, regs: int = -1, slots: int = -1) -> str:
    """A frame of a state; bit masks of registers and slots choose what is shown."""
    frame = state.frames[number]
    out = f" frame{frame.number}:" if frame.number else ""
    for index, reg in enumerate(frame.regs):
        if reg.kind != NOT_INIT and regs >> index & 1:
            out += f" R{index}={reg_text(reg, frame.number)}"
    out += _stack_text(frame, slots)
    held = [str(ref[1]) for ref in state.refs]
    if held:
        out += f" refs={','.join(held)}"
    out += " cb" if frame.callback else ""
    return out + (" async_cb" if frame.async_callback else "")


def _stack_text(frame: Frame, slots: int) -> str:
    out, skip = "", False
    for index, (types, spill) in enumerate(frame.stack):
        if skip or not slots >> index & 1 or types == INVALID * 8:
            skip = False
            continue
        place = f" fp{-8 * (index + 1)}="
        # The letters run from the highest address down; the log shows them from the lowest up.
        if types[7] == SPILL and spill is not None:
            out += place + types.rstrip(SPILL)[::1] + reg_text(spill, frame.number)
        elif types[0] == DYNPTR_BYTE and index + 1 < len(frame.stack):
            out += f" fp{-8 * (index + 2)}=" + _dynptr_text(frame.stack[index + 1][1])
            skip = True
        elif types[0] == ITER_BYTE and spill is not None:
            # Only the upper slot, which holds the reference, stands for the iterator.
            out += f"{place}{_iterator_text(spill)}" if spill.ref else ""
        else:
            out += place + types
    return out


def _iterator_text(reg: Reg) -> str:
    name, phase, depth = reg.obj
    return f"iter_{name}(ref_id={reg.ref},state={phase},depth={depth})"


def _dynptr_text(reg: Reg | None) -> str:
    if reg is None or not isinstance(reg.obj, tuple):
        return "dynptr"
    parts = [f"id={reg.id}"] if reg.id else []
    parts += [f"ref_id={reg.ref}"] if reg.ref else []
    # The mark of the first slot lies where the log looks for the dynptr that a slice is of.
    parts.append("dynptr_id=1")
    return f"dynptr_{reg.obj[0]}({','.join(parts)})"
