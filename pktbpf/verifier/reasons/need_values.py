"""Needs of registers and arithmetic: set before they are read, addresses that stay addresses, sums within limits."""

from __future__ import annotations

import re

from pktbpf.verifier.reasons import words
from pktbpf.verifier.reasons.compares import tests_of
from pktbpf.verifier.reasons.need_bounds import bound_remedy
from pktbpf.verifier.reasons.scene import Need, Remedy, Scene
from pktbpf.verifier.state import SCALAR, STACK

_LIMIT = (1 << 29) - 1


def not_set(scene: Scene, match: re.Match[str]) -> Need:
    """A register is read that this path never set, or that a call cleared."""
    number = int(match["reg"])
    name = f"r{number}"
    made = scene.definition(number)
    has = "not set on this path"
    text = f"set {name} on every path that leads to {scene.here}"
    if made is not None and made.how == "cleared":
        insn = scene.insns[made.index]
        what = "the packet load" if insn.code & 7 == 0 else "the call"
        has = f"cleared by {what} at {made.index}"
        before = made.sources[0]
        if number == 0:
            text = f"set r0 after {what} at {made.index}"
        elif before.how == "unset" or before.how == "cleared":
            text = f"set {name} after {what} at {made.index}"
        else:
            text = f"keep the value in r6 to r9 or on the stack over {what} at {made.index}, or load it again after it"
    elif scene.walk is not None:
        others = scene.other_definitions(number)
        if others:
            has += f"; {scene.place(others[-1])} sets it, but is not on this path"
    return Need("register_set", f"R{number} to hold a value", has,
                Remedy("set", text, scene.index, {"register": f"R{number}"}), (number,))  # fmt: skip


def no_result(scene: Scene, match: re.Match[str]) -> Need:
    """R0 at an exit: the verdict of the filter."""
    need = not_set(scene, match)
    if not scene.depth:
        text = f"set r0 to the verdict (bytes to keep, 0 drops) before {scene.here}"
        return Need(need.kind, "R0 to hold the verdict", need.has, Remedy("set", text, scene.index, {"register": "R0"}),
                    (0,))  # fmt: skip
    return need


def set_register(scene: Scene, match: re.Match[str]) -> Need:
    """Chooses between the two."""
    return no_result(scene, match) if scene.insn.code == 0x95 else not_set(scene, match)


def sum_limits(scene: Scene, match: re.Match[str]) -> Need | None:
    """A number added to an address must be bounded from both sides."""
    insn = scene.insn
    if insn.code & 7 != 7 or not scene.regs:
        return None
    if not insn.code & 8:
        return Need(
            "sum", f"an amount between -{_LIMIT} and {_LIMIT}", f"{insn.imm} for R{insn.dst}: {scene.words(insn.dst)}",
            Remedy("offset", "use a smaller offset", scene.index, {"register": f"R{insn.dst}"}), (insn.dst,),
        )  # fmt: skip
    amount = insn.dst if scene.regs[insn.dst].kind == SCALAR else insn.src
    pointer = insn.src if amount == insn.dst else insn.dst
    most = _sensible(scene, pointer)
    remedy = bound_remedy(scene, amount, 0, most, scene.index, None)
    found = tests_of(scene, scene.definition(amount), scene.regs[amount], most, len(scene.path) - 1)
    has = f"R{amount}: {scene.words(amount)}; {found.words() or 'never compared on this path'}"
    return Need("sum", f"R{amount} bounded from both sides before it is added to an address", has, remedy,
                (amount, pointer))  # fmt: skip


def _sensible(scene: Scene, pointer: int) -> int:
    """The largest index that can be right for a pointer."""
    reg = scene.regs[pointer]
    size = getattr(reg.obj, "value_size", reg.obj if isinstance(reg.obj, int) else 0)
    _, high = words.span(reg)
    end = 0 if reg.kind == STACK else size
    return max(end - 1 - (high or 0), 1)


def unprivileged_sum(scene: Scene, match: re.Match[str]) -> Need:
    """Without CAP_PERFMON the sum must stay inside its memory however the processor mispredicts."""
    number, line, insn = int(match["reg"]), match.string, scene.insn
    needed = f"R{number} to stay inside its memory with every sum"
    text = "add a constant, or choose with branches"
    if "mixed signed bounds" in line:
        needed = f"R{number} to be known as negative or as not negative"
        text = f"insert `if r{number} s< 0 goto +N` before {scene.here}, or mask it with `&=`"
    elif "unsupported alu operation" in line:
        needed = f"R{number} to be an address on the stack or in a map value, where a register is added"
        text = "add constants only to other addresses"
    elif "different maps" in line:
        needed = f"`{scene.text(scene.index)}` to be the same sum on every path: the same memory and direction"
        text = "give each path an addition of its own"
    others = (insn.dst, insn.src) if insn.code & 8 and insn.code & 7 == 7 else ()
    return Need("sanitised_sum", f"{needed} (without CAP_PERFMON)", scene.words(number),
                Remedy("sum", text, scene.index, {"register": f"R{number}"}),
                tuple(dict.fromkeys((number, *others))))  # fmt: skip


def constant_wrong(scene: Scene, match: re.Match[str]) -> Need:
    """A division by zero, or a shift by more than the width."""
    bits = 64 if scene.insn.code & 7 == 7 else 32
    if match[0].startswith("div"):
        return Need("constant", "a divisor that is not 0", "0",
                    Remedy("constant", "divide by another constant", scene.index))  # fmt: skip
    return Need("constant", f"a shift by 0..{bits - 1}", str(scene.insn.imm),
                Remedy("constant", f"shift by less than {bits}", scene.index))  # fmt: skip


def frame_pointer(scene: Scene, match: re.Match[str]) -> Need:
    """R10 cannot be changed."""
    remedy = Remedy("frame_pointer", "copy r10 to another register first and change the copy", scene.index)
    return Need("frame_pointer", "another register than R10 as the target", scene.text(scene.index), remedy)


def packet_register(scene: Scene, match: re.Match[str]) -> Need:
    """Packet loads find the packet through R6."""
    text = f"insert `r6 = r1` at the start and keep r6 until {scene.here}"
    return Need("packet_context", "R6 to hold the context", scene.words(6),
                Remedy("packet_context", text, 0, {"register": "R6"}), (6,))  # fmt: skip


RULES = (
    (r"^R(?P<reg>\d+) !read_ok$", set_register),
    (r"^R(?P<reg>\d+) .*prohibited for !root", unprivileged_sum),
    (r"^math between|^value -?\d+ makes|^\w+ pointer offset -?\d+ is not allowed", sum_limits),
    (r"^div by zero|^invalid shift", constant_wrong),
    (r"^frame pointer is read only", frame_pointer),
    (r"^at the time of BPF_LD_ABS", packet_register),
)  # fmt: skip
