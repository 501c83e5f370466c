"""Needs of addresses that must stay inside the program: returned, stored, passed, compared, and calculated with."""

from __future__ import annotations

import re

from pktbpf.verifier.reasons.scene import Need, Remedy, Scene
from pktbpf.verifier.scalar import signed64
from pktbpf.verifier.state import BASE, CTX, MAP_KEY, MAP_VALUE, MEM, OR_NULL, SCALAR, STACK, STACK_LIMIT

_PRIVILEGE = "load the program with CAP_PERFMON, which may show addresses"
_PLACES = {"return value": "the filter's result", "ctx": "the context", "map": "a map", "mem": "shared memory",
           "helper function": "a helper"}  # fmt: skip
_OPERATIONS = {0x10: "-=", 0x20: "*=", 0x30: "/=", 0x40: "|=", 0x50: "&=", 0x60: "<<=", 0x70: ">>=", 0x90: "%=",
               0xA0: "^=", 0xC0: "s>>="}  # fmt: skip


def _number_behind(scene: Scene, number: int) -> str:
    """How to get at the number that an address may have been meant for."""
    name, base = f"r{number}", scene.regs[number].kind & BASE
    if scene.regs[number].kind & OR_NULL:
        return ""
    if base == CTX:
        return f"a field of the context instead of its address, such as `{name} = *(u32 *)({name} +0)` (skb->len)"
    if base in (MAP_VALUE, MAP_KEY, MEM) or (base == STACK and number != 10):
        return f"what it points to instead of the address: `{name} = *(u64 *)({name} +0)`"
    return ""


def _saved(scene: Scene, number: int) -> str:
    """Where an address may be kept: the first free slot of the stack."""
    offset = -8 * (len(scene.frames[-1].stack) + 1) if scene.frames else -8
    if -offset > STACK_LIMIT:
        return "an address that is needed later stays in r6 to r9"
    return f"an address that is needed later may be saved on the stack only, `*(u64 *)(r10 {offset:+d}) = r{number}`"


def _leaving(scene: Scene, number: int, where: str) -> str:
    """What to do, by the way in which the address would leave."""
    null = scene.regs[number].kind & OR_NULL
    if where == "return value":
        text = f"return a number: `r0 = BYTES` (how many to keep, 0 drops) before {scene.here}"
        if null:
            return f"{text}; to tell found from not found, `if r0 == 0 goto +N` and a constant on either way"
        return text
    if where == "helper function":
        return f"pass a number in r{number}: this argument of {scene.callee(scene.index)} is a plain number"
    if scene.insn.code & 0xE7 == 0xC3:
        return f"give the atomic operation a number in r{number}: addresses cannot be exchanged or added up in memory"
    behind = _number_behind(scene, number)
    if null:
        return f"store whether there is one: `if r{number} == 0 goto +N`, then 1 or 0; {_saved(scene, number)}"
    return (f"store {behind}" if behind else f"store a number, not r{number}") + f"; {_saved(scene, number)}"


def leak(scene: Scene, match: re.Match[str]) -> Need:
    """An address would become visible as a number."""
    number, where = int(match["reg"]), match["where"]
    place = _PLACES.get(where, "")
    needed = f"R{number} to be a number where it goes to {place}" if place else f"R{number} to be a number"
    kind = {"return value": "return_number", "helper function": "pass_number"}.get(where, "store_number")
    text = f"{_leaving(scene, number, where)}; or {_PRIVILEGE}"
    return Need("pointer_leak", needed, scene.words(number),
                Remedy(kind, text, scene.index, {"register": f"R{number}"}), (number,))  # fmt: skip


def _comparing(scene: Scene, number: int) -> str:
    """What to compare instead of an address."""
    insn, reg = scene.insn, scene.regs[number]
    name = f"r{number}"
    other = insn.src if number == insn.dst else insn.dst
    if insn.code & 8 and other != number and scene.regs[other].kind != SCALAR:
        return (f"count how far each of r{number} and r{other} was moved in a register of its own, a number, and "
                "compare these instead of the addresses")  # fmt: skip
    zero = not insn.imm if not insn.code & 8 else False
    if reg.kind & OR_NULL:
        what = "the test compares the lower half only" if insn.code & 7 == 6 else "this is no test for null"
        return f"{what}: use `if {name} == 0 goto +N` or `if {name} != 0 goto +N`, all 64 bits, with the constant 0"
    if zero:
        return f"remove the test: {name} cannot be null here"
    if reg.v[1] or reg.off:
        return f"compare the number that was added to {name}, before it is added"
    behind = _number_behind(scene, number)
    return f"compare {behind}" if behind else f"compare a number that was kept in another register, not {name}"


def compared(scene: Scene, match: re.Match[str]) -> Need:
    """Comparing addresses tells something of them."""
    number = int(match["reg"])
    return Need("pointer_leak", f"R{number} to be a number where it is compared", scene.words(number),
                Remedy("no_compare", f"{_comparing(scene, number)}; or {_PRIVILEGE}", scene.index,
                       {"register": f"R{number}"}), (number,))  # fmt: skip


def _calculating(scene: Scene, pointers: tuple[int, ...], line: str) -> str:
    """How to get what an operation on an address was meant for."""
    insn, number = scene.insn, pointers[0]
    name, code = f"r{number}", insn.code & 0xF0
    if len(pointers) == 2:
        if code == 0x10:
            text = f"keep the distance as a number: count in another register what is added to r{insn.dst}"
            return text if scene.privilege == "root" else f"{text}; or {_PRIVILEGE}"
        return "add a number to one address; two addresses cannot be combined"
    operand = f"r{insn.src}" if insn.code & 8 else str(insn.imm)
    if "partial copy" in line or "sign-extension part" in line:
        return f"copy all 64 bits: `r{insn.dst} = r{insn.src}`; a part of an address is none"
    if insn.code & 7 == 4 and code in (0x00, 0x10):
        return f"calculate with 64 bits, `{name} {'+=' if not code else '-='} {operand}`: half an address is none"
    if "subtract" in line:
        if scene.regs[insn.dst].kind != SCALAR:
            added = f"`{operand} = -{operand}`, `{name} += {operand}`"
            return f"add the negative number: {added if insn.code & 8 else f'`{name} += {-insn.imm}`'}"
        value = scene.regs[insn.dst].v
        less = str(-signed64(value[0])) if not value[1] else "the negative number"
        return f"take the number from the address: `r{insn.dst} = {operand}`, then add {less} to r{insn.dst}"
    if scene.regs[number].kind == CTX and code in (0x00, 0x10):
        return "put the offset into the load or store; the context's address stays as it is"
    if code in _OPERATIONS and insn.dst == number and insn.code & 7 in (4, 7) and code != 0x10:
        return (f"apply `{_OPERATIONS[code]} {operand}` to the number that is added to {name}, before it is added; "
                "an address takes only + and - of numbers, 64 bits wide")  # fmt: skip
    if code == 0x80:
        return f"negate the number before it is added to {name}; an address has no negative"
    return f"add a number to {name} or subtract one, 64 bits wide; everything else makes an address unusable"


def pointer_arithmetic(scene: Scene, match: re.Match[str]) -> Need:
    """An operation that addresses do not have."""
    number = int(match["reg"])
    insn = scene.insn
    operands = (number, insn.src) if insn.code & 8 and insn.code & 7 in (4, 7) and insn.src != number else (number,)
    pointers = tuple(n for n in operands if scene.regs[n].kind != SCALAR) or (number,)
    has = "; ".join(f"R{n}: {scene.words(n)}" for n in pointers)
    return Need("pointer_arithmetic", f"operands that are numbers for `{scene.text(scene.index)}`", has,
                Remedy("arithmetic", _calculating(scene, pointers, match.string), scene.index,
                       {"register": f"R{pointers[0]}"}), pointers)  # fmt: skip


RULES = (
    (r"^R(?P<reg>\d+) leaks addr (?:into|as) (?P<where>.*)$", leak),
    (r"^R(?P<reg>\d+) pointer comparison prohibited", compared),
    (r"^R(?P<reg>\d+) (?!.*prohibited for !root)(?:(?:32-bit )?pointer arithmetic|pointer \S+ pointer prohibited|"
     r"partial copy of pointer|sign-extension part of pointer|bitwise operator|tried to subtract|"
     r"subtraction from stack)", pointer_arithmetic),
)  # fmt: skip
