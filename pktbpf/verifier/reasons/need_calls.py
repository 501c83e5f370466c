"""Needs of calls: the right kinds of arguments and sizes, references given back, helpers that may be called."""

from __future__ import annotations

import re

from pktbpf.abi.helpers import BY_ID, helper_name
from pktbpf.verifier.reasons.need_bounds import size_need, size_zero
from pktbpf.verifier.reasons.scene import Need, Remedy, Scene
from pktbpf.verifier.state import DYNPTR_BYTE, ITER_BYTE, SCALAR, STACK, spilled

_KINDS = {
    "fp": "a stack address", "map_value": "an address in a value of a map", "map_key": "an address in a key of a map",
    "map_ptr": "a map", "ctx": "the context", "scalar": "a number", "mem": "memory of a helper", "func": "a function",
    "ringbuf_mem": "a ring buffer record", "sock": "a socket", "sock_common": "a socket", "tcp_sock": "a TCP socket",
    "xdp_sock": "an XDP socket", "dynptr_ptr": "a dynptr", "ptr_": "a kernel object", "buf": "", "pkt": "",
    "pkt_meta": "", "trusted_ptr_": "", "rcu_ptr_": "", "percpu_ptr_": "a per-CPU object", "percpu_rcu_ptr_": "",
    "percpu_trusted_ptr_": "",
}  # fmt: skip
_RELEASES = {
    "bpf_ringbuf_reserve": "bpf_ringbuf_submit or bpf_ringbuf_discard",
    "bpf_ringbuf_reserve_dynptr": "bpf_ringbuf_submit_dynptr or bpf_ringbuf_discard_dynptr",
    "bpf_map_lookup_elem": "bpf_sk_release",
}


def _called(scene: Scene) -> str:
    """The callee of the refusing instruction, in words."""
    return scene.callee(scene.index)


def argument_kind(scene: Scene, match: re.Match[str]) -> Need:
    """A register does not hold what the helper takes."""
    number = int(match["reg"])
    kinds = list(dict.fromkeys(word for kind in match["kinds"].split(", ") if (word := _KINDS.get(kind, kind))))
    wanted = kinds[0] if len(kinds) == 1 else f"{', '.join(kinds[:-1])} or {kinds[-1]}"
    has = scene.words(number)
    text = f"put {wanted} into r{number} before {scene.here}"
    if "fp" in match["kinds"].split(", ") and scene.regs[number].kind == SCALAR:
        text = f"write the bytes to the stack and pass their address: `r{number} = r10`, then `r{number} += -SIZE`"
    return Need("argument", f"R{number}, an argument of {_called(scene)}, to be {wanted}", has,
                Remedy("argument", text, scene.index, {"register": f"R{number}"}), (number,),
                {"accepts": match["kinds"].split(", ")})  # fmt: skip


def size_bound(scene: Scene, match: re.Match[str]) -> Need:
    """A size that may be negative, zero, or too large."""
    number = int(match["reg"])
    return size_zero(scene, number) if "zero-sized" in match[0] else size_need(scene, number)


def known_size(scene: Scene, match: re.Match[str]) -> Need:
    """A size that must be a constant."""
    number = int(match["reg"])
    return Need("constant_size", f"R{number} to be one known number", scene.words(number),
                Remedy("constant", f"put a constant into r{number} before {scene.here}", scene.index,
                       {"register": f"R{number}"}), (number,))  # fmt: skip


def reference_leak(scene: Scene, match: re.Match[str]) -> Need:
    """Something that was acquired is not given back."""
    id, taken = int(match["id"]), int(match["insn"])
    name = scene.callee(taken)
    destroy = f"{name.removesuffix('_new')}_destroy" if name.endswith("_new") else "what releases it"
    release = _RELEASES.get(name, destroy)
    holders = _holders(scene, id)
    registers = tuple(int(holder[1:]) for holder in holders if holder[0] == "R" and " " not in holder)[:1]
    what = f"what {name} at {taken} acquired"
    exits = scene.insn.code == 0x95
    where = "the program ends" if exits else f"`{scene.text(scene.index)}`"
    if holders:
        text = f"pass {holders[0].lower() if holders[0][0] == 'R' else holders[0]} to {release} before {scene.here}"
        has = f"still held by {', '.join(holders)}"
    else:
        text = f"keep its address in r6 to r9 or on the stack and pass it to {release} before {scene.here}"
        has = "still held, but no register and no stack slot has its address any more"
    return Need(
        "release", f"{what} to be given back before {where}", has,
        Remedy("release", text, scene.index, {"acquired": taken, "held_by": holders}), registers,
        {"acquired": taken, "by": name, "held_by": holders},
    )  # fmt: skip


def _holders(scene: Scene, id: int) -> list[str]:
    """Registers and stack slots with the reference."""
    out = []
    for frame in scene.frames:
        inner = frame is scene.frames[-1]
        regs = scene.regs if inner else frame.regs
        owner = "" if inner else f" of frame {frame.number}"
        out += [f"R{n}{owner}" for n, reg in enumerate(regs) if reg.ref == id]
        for slot, (types, reg) in enumerate(frame.stack):
            if reg is not None and reg.ref == id and (spilled((types, reg)) or types[0] in (DYNPTR_BYTE, ITER_BYTE)):
                out.append(f"fp{-8 * (slot + 1)}{owner}")
    return out


def not_acquired(scene: Scene, match: re.Match[str]) -> Need:
    """Something is released that is not held."""
    number = next((n for n in range(1, 6) if f"R{n} " in match[0]), 1)
    return Need(
        "reference", f"R{number} to be what a helper acquired, not released before", scene.words(number),
        Remedy("reference", "release once, and only what the acquiring helper returned, not null", scene.index,
               {"register": f"R{number}"}), (number,),
    )  # fmt: skip


def helper_forbidden(scene: Scene, match: re.Match[str]) -> Need:
    """A helper that this program may not name."""
    row = BY_ID.get(scene.insn.imm)
    name = f"bpf_{helper_name(scene.insn.imm)}"
    if row is None:
        has, text = f"{name} is for other types of programs, or does not exist", f"do without {name}"
    elif row.privilege != "none" and scene.privilege == "none":
        has, text = f"{name} needs privileges", "load the program with CAP_BPF" + (
            " and CAP_PERFMON" if row.privilege == "perfmon" else ""
        )  # fmt: skip
    elif row.privilege == "perfmon" and scene.privilege == "cap_bpf":
        has, text = f"{name} needs CAP_PERFMON", "load the program with CAP_PERFMON as well"
    else:
        has, text = f"{name} is there since Linux {row.since}", f"do without {name} on this kernel"
    return Need("helper", "a helper that this program may call", has, Remedy("helper", text, scene.index))


def callback_types(scene: Scene, match: re.Match[str]) -> Need:
    """A callback whose type is not known."""
    return Need(
        "callback_btf", "type information (BTF) for the function that is called back", "none in this program",
        Remedy("btf", "build the object with clang -g, which adds BTF, and load it with its func_info", scene.index),
    )


def callback_static(scene: Scene, match: re.Match[str]) -> Need:
    """A callback that is global."""
    return Need("callback_static", "a static function to call back", "a global one",
                Remedy("static", "declare the callback `static`", scene.index))  # fmt: skip


def map_type(scene: Scene, match: re.Match[str]) -> Need:
    """A helper that does not work on this kind of map."""
    number = next((n for n in range(1, 6) if getattr(scene.regs[n].obj, "kind", None)), 1)
    info = scene.regs[number].obj
    kind = getattr(info, "kind", "")
    return Need(
        "map_type", f"a map of a kind that {_called(scene)} works on", f"{scene.words(number)}, kind {kind}",
        Remedy("map_type", f"use a helper for {kind} maps, or another kind of map", scene.index, {"map_kind": kind}),
        (number,),
    )  # fmt: skip


def result_range(scene: Scene, match: re.Match[str]) -> Need:
    """A callback returns something else than 0 or 1."""
    low, high = int(match["low"]), int(match["high"])
    allowed = str(low) if low == high else f"{low} or {high}"
    text = f"set r0 to {allowed} before the callback ends: 0 goes on, 1 stops" if high else "set r0 to 0 before it ends"
    return Need("result", f"R0 to be {allowed} where the callback returns", scene.words(0),
                Remedy("result", text, scene.index, {"low": low, "high": high}), (0,))  # fmt: skip


def dynptr(scene: Scene, match: re.Match[str]) -> Need:
    """A dynptr that is not one, or is one already."""
    fresh = "uninitialized" in scene.lines[-1]
    number = next((n for n in range(1, 6) if scene.regs[n].kind == STACK), 1)
    row = scene.helper()
    for position, arg in enumerate(row.arg_types if row is not None else (), 1):
        if arg.kind == "dynptr":
            number = position
    text = "pass 16 bytes of the stack, at a multiple of 8, that hold no dynptr" if fresh else (
        "fill it first with bpf_dynptr_from_mem or bpf_ringbuf_reserve_dynptr, and do not overwrite its 16 bytes"
    )  # fmt: skip
    needed = f"R{number} to point to a dynptr" if not fresh else f"R{number} to point to 16 free bytes for a dynptr"
    return Need("dynptr", needed, scene.words(number), Remedy("dynptr", text, scene.index), (number,))


def global_argument(scene: Scene, match: re.Match[str]) -> Need:
    """A call of a global function whose arguments do not fit its prototype."""
    number = int(match["arg"]) + 1 if match["arg"] is not None else int(match["reg"])
    return Need("argument", f"R{number} to fit the function's prototype: {match[0]}", scene.words(number),
                Remedy("argument", "pass what the prototype says, or make the function static", scene.index),
                (number,))  # fmt: skip


RULES = (
    (r"^R(?P<reg>\d+) type=\w+ expected=(?P<kinds>.*)$", argument_kind),
    (r"^R(?P<reg>\d+) (?:min value is negative, either use unsigned or|invalid zero-sized read|"
     r"unbounded memory access, use)", size_bound),
    (r"^R(?P<reg>\d+) (?:(?:is not|must be) a known constant|unbounded size, use)", known_size),
    (r"^Unreleased reference id=(?P<id>\d+) alloc_insn=(?P<insn>\d+)", reference_leak),
    (r"must be referenced when passed to release|reference has not been acquired", not_acquired),
    (r"cannot use helper bpf_|^(?:invalid|unknown) func ", helper_forbidden),
    (r"^missing btf func_info", callback_types),
    (r"^callback function not static", callback_static),
    (r"^cannot pass map_type|^expected prog array map|misconfigured verifier$", map_type),
    (r"callback return the register R0 .*should have been in \[(?P<low>-?\d+), (?P<high>-?\d+)\]", result_range),
    (r"dynptr", dynptr),
    (r"^(?:arg#(?P<arg>\d)|R(?P<reg>\d) is not a scalar)", global_argument),
)  # fmt: skip
