"""Needs of the stack: bytes that were written before they are read, within 512 bytes, whole spills."""

from __future__ import annotations

import re

from pktbpf.verifier.reasons import words
from pktbpf.verifier.reasons.need_bounds import addition, has_size, index_remedy, size_need
from pktbpf.verifier.reasons.scene import Need, Remedy, Scene
from pktbpf.verifier.state import DYNPTR_BYTE, INVALID, SPILL, STACK, STACK_LIMIT, Frame

_STACK = range(-STACK_LIMIT, 0)
_STORES = {8: "u64", 4: "u32", 2: "u16", 1: "u8"}


def letters(frame: Frame, low: int, high: int) -> str:
    """One letter for each stack byte from `low` to `high` - 1; `?` for those never written."""
    out = ""
    for byte in range(low, high):
        place = -byte - 1
        out += frame.stack[place >> 3][0][place & 7] if place >= 0 and place >> 3 < len(frame.stack) else INVALID
    return out


def ranges(frame: Frame, low: int, high: int) -> list[tuple[int, int]]:
    """(first, last) of the runs of unwritten bytes."""
    found = letters(frame, low, high)
    return [(low + run.start(), low + run.end() - 1) for run in re.finditer(re.escape(INVALID) + "+", found)]


def _run_text(first: int, last: int) -> str:
    return f"fp{first:+d}" if first == last else f"fp{first:+d}..fp{last:+d}"


def unwritten(scene: Scene, match: re.Match[str]) -> Need | None:
    """Stack bytes are read that this path never wrote."""
    number, size = _pointer(scene, match), int(match["size"])
    reg = scene.regs[number]
    if reg.kind != STACK:
        return None
    frame = scene.frames[reg.frame]
    offset = scene.insn.off if scene.insn.code & 7 in (1, 2, 3) else 0
    low, last = words.span(reg)
    low, high = low + offset, (last if last is not None else low) + offset + size
    runs = ranges(frame, low, high)
    if not runs or scene.walk is None or scene.walk.reads_unwritten_stack:
        return _pointer_bytes(scene, frame, low, high, number)
    text = ", ".join(_run_text(*run) for run in runs)
    missing = sum(last - first + 1 for first, last in runs)
    return Need(
        "stack_initialised", f"bytes {_run_text(low, high - 1)} of the stack to be written before",
        f"{text} never written on this path" if missing < high - low else "none of them written on this path",
        Remedy("initialise", _initialise(scene, runs, missing < high - low), scene.index,
               {"bytes": [list(run) for run in runs]}), (number,),
        {"offset": low, "size": high - low, "missing": [list(run) for run in runs]},
    )  # fmt: skip


def _pointer(scene: Scene, match: re.Match[str]) -> int:
    if match["reg"] is not None:
        return int(match["reg"])
    return scene.insn.dst if scene.insn.code & 7 in (2, 3) else scene.insn.src


def _initialise(scene: Scene, runs: list[tuple[int, int]], partly: bool) -> str:
    text = f"initialise bytes {', '.join(_run_text(*run) for run in runs)} of the stack before {scene.here}"
    first, last = runs[0]
    size = last - first + 1
    if len(runs) == 1 and size in _STORES and not first % size:
        text += f": `*({_STORES[size]} *)(r10 {first:+d}) = 0`"
    return f"{text}; in C, clear a structure as a whole, its padding too" if partly else text


def _pointer_bytes(scene: Scene, frame: Frame, low: int, high: int, number: int) -> Need | None:
    """All bytes are written, but with what may not be seen as numbers."""
    found = letters(frame, low, high)
    place = _run_text(low, high - 1)
    if DYNPTR_BYTE in found:
        kind, has = "dynptr", "a dynptr is there, which only helpers may read"
    elif SPILL in found:
        kind, has = "pointer_leak", "an address is saved there, which may not leave the program without CAP_PERFMON"
    else:
        return None
    return Need(kind, f"bytes {place} of the stack to hold numbers", has,
                Remedy("overwrite", f"use other bytes, or write numbers over {place} before {scene.here}", scene.index),
                (number,))  # fmt: skip


def outside(scene: Scene, match: re.Match[str]) -> Need | None:
    """The stack ends 512 bytes below the frame pointer."""
    number = int(match["reg"])
    reg = scene.regs[number]
    if reg.kind != STACK:
        return None
    size = int(match["size"]) if match["size"] is not None else 1
    offset = scene.insn.off if scene.insn.code & 7 in (1, 2, 3) else 0
    low, high = words.span(reg)
    data = {"low": low + offset, "high": high + offset if high is not None else None, "size": size}
    needed = f"{words.count(size)} between fp-{STACK_LIMIT} and fp-1"
    if not reg.v[1]:
        if has_size(scene, number) and scene.regs[number + 1].v[1]:
            return size_need(scene, number + 1)
        if -STACK_LIMIT <= low + offset < 0 and low + offset + size <= 0:
            return _never_written(scene, low + offset, size, number, data)
        has = _run_text(low + offset, low + offset + size - 1) if size > 0 else f"{size} bytes"
        return Need("stack_bounds", needed, has, _shift(scene, number, offset, size), (number,), data)
    has = f"{scene.words(number)}, {size} bytes from there" + (f" {offset:+d}" if offset else "")
    return Need("stack_bounds", needed, has, _bound(scene, number, range(offset, offset + size)), (number,), data)


def _never_written(scene: Scene, low: int, size: int, number: int, data: dict[str, int | None]) -> Need:
    """Without CAP_PERFMON the stack below what was written does not exist for a reader."""
    run = (low, low + size - 1)
    return Need(
        "stack_initialised", f"bytes {_run_text(*run)} of the stack to be written before",
        "none of them written on this path",
        Remedy("initialise", _initialise(scene, [run], False), scene.index, {"bytes": [list(run)]}), (number,),
        data,
    )  # fmt: skip


def _shift(scene: Scene, number: int, offset: int, size: int) -> Remedy:
    """A constant place that is wrong."""
    added = addition(scene, number, varies=False)
    if added is not None:
        remedy = index_remedy(scene, number, added, range(offset, offset + size), _STACK)
        if remedy is not None:
            return remedy
    if words.span(scene.regs[number])[0] + offset < -STACK_LIMIT:
        return Remedy("offset", "use less stack, or a map for large data", scene.index)
    return Remedy("offset", f"use an offset of at most {-size}: the stack ends at fp-1", scene.index)


def _bound(scene: Scene, number: int, reach: range) -> Remedy:
    added = addition(scene, number)
    if added is None:
        return Remedy("bound", f"bound what is added to r{number}", scene.index, {"register": f"R{number}"})
    remedy = index_remedy(scene, number, added, reach, _STACK)
    if remedy is not None:
        return remedy
    text = "begin lower on the stack: no index fits behind the constant part of the offset"
    return Remedy("offset", text, scene.index, {"register": f"R{added.register}"})


def partial(scene: Scene, match: re.Match[str]) -> Need:
    """A saved address is read or overwritten in part."""
    number = scene.insn.src if scene.insn.code & 7 == 1 else scene.insn.dst
    what = "saved" if "spill" in match[0] else "overwritten" if "corrupt" in match[0] else "read back"
    text = f"use an 8-byte access, `*(u64 *)`, in {scene.here}, or another place on the stack"
    return Need(
        "whole_pointer", f"an address on the stack to be {what} as a whole, 8 bytes at a multiple of 8",
        f"{scene.text(scene.index)}, a part of it", Remedy("whole", text, scene.index),
        (number,) if scene.regs[number].kind == STACK else (),
    )  # fmt: skip


def to_outer_frame(scene: Scene, match: re.Match[str]) -> Need:
    """An address of this function's stack would outlive the function."""
    return Need(
        "stack_lifetime", "no stack address of this function to be kept after it returns", scene.text(scene.index),
        Remedy("lifetime", "let the caller hand in the buffer, or keep an offset instead of an address", scene.index),
        (scene.insn.src,) if scene.insn.code & 7 == 3 else (0,),
    )  # fmt: skip


def spill_overwritten(scene: Scene, match: re.Match[str]) -> Need:
    """A store at a varying place might hit a saved address, or bytes that were never written."""
    number = scene.insn.dst
    at = int(match["off"])
    spilled = "spilled" in match[0]
    has = f"fp{at} {'holds a saved address' if spilled else 'was never written'}"
    text = "keep saved addresses out of reach of the index" if spilled else f"write fp{at} and its neighbours first"
    return Need("stack_range", "every byte that the index can reach to hold numbers, written before", has,
                Remedy("initialise", text, scene.index, {"bytes": [[at, at]]}), (number,))  # fmt: skip


def helper_variable(scene: Scene, match: re.Match[str]) -> Need | None:
    """Stack at a varying offset that this privilege may not use so."""
    number = int(match["reg"]) if match["reg"] is not None else _stack_register(scene)
    if number is None or not scene.regs:
        return None
    text = "choose the place with branches, or use a map: without CAP_PERFMON the offset must be constant here"
    has = words.register_words(scene.after(number), scene.depth)
    insn = scene.insn
    registers = (number, insn.src) if insn.code & 7 == 7 and insn.code & 8 and insn.src != number else (number,)
    return Need("constant_stack", f"R{number} at a constant place on the stack", has,
                Remedy("constant", text, scene.index, {"register": f"R{number}"}), registers)  # fmt: skip


def _stack_register(scene: Scene) -> int | None:
    return next((n for n in range(1, 10) if scene.regs[n].kind == STACK and scene.regs[n].v[1]), None)


RULES = (
    (r"^invalid (?:indirect )?read from stack(?: R(?P<reg>\d+))? (?:off|var_off) .*\+\d+ size (?P<size>\d+)$",
     unwritten),
    (r"^invalid (?:unbounded )?(?:variable-offset )?(?:write to|read from|indirect access to) stack R(?P<reg>\d+)"
     r"(?:.* size=(?P<size>-?\d+))?$", outside),
    (r"^invalid size of register (?:spill|fill)|^attempt to corrupt spilled pointer", partial),
    (r"^cannot spill pointers to stack into stack frame|^cannot return stack pointer", to_outer_frame),
    (r"^(?:spilled ptr|uninit stack) in range of var-offset .*off: (?P<off>-?\d+)", spill_overwritten),
    (r"^(?:R(?P<reg>\d+) )?(?:indirect )?variable (?:offset )?stack (?:access prohibited|pointer cannot)",
     helper_variable),
)  # fmt: skip
