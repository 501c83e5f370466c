# ruff: noqa: E501
"""Nearly right programs of several functions with BTF: global and static ones, callbacks, depth, tail calls inside."""

from __future__ import annotations

import random
from collections.abc import Callable

from verifier_generate import EXIT, Code, I, Maker, call, ldmap, mov, movr
from verifier_oracle import MAPS, Sample
from verifier_types import SPECS

from pktbpf.isa.extended import Insn

# Immediates from here on stand for "the function of this number" until `link` knows the distances.
PLACE = 1 << 24
NUMBER = {spec.name: number for number, (spec, _) in enumerate(MAPS)}
STATIC = [name for name in SPECS if name.startswith("s_")]
GLOBAL = [name for name in SPECS if name.startswith("g_")]
FINE = [name for name in GLOBAL if name.startswith("g_args") and name not in
        ("g_args10", "g_args16", "g_args17", "g_args18", "g_args19", "g_args21", "g_args27")]  # fmt: skip


def invoke(number: int) -> Insn:
    """A call of function `number` of the program."""
    return I(0x85, 0, 1, 0, PLACE + number)


def address(register: int, number: int) -> Code:
    """The address of function `number`."""
    return [I(0x18, register, 4, 0, PLACE + number), I(0)]


def link(bodies: list[tuple[str, Code]]) -> Sample:
    """One program of named functions, main first; those that none of the others names are left out."""
    wanted, ahead = {0}, [0]
    while ahead:
        for insn in bodies[ahead.pop()][1]:
            if _names(insn) and insn.imm >= PLACE:
                number = (insn.imm - PLACE) % len(bodies)
                if number not in wanted:
                    wanted.add(number)
                    ahead.append(number)
    starts: dict[int, int] = {}
    code: Code = []
    for number in sorted(wanted):
        starts[number] = len(code)
        code += bodies[number][1]
    for at, insn in enumerate(code):
        if _names(insn) and insn.imm >= PLACE:
            code[at] = insn._replace(imm=starts[(insn.imm - PLACE) % len(bodies)] - at - 1)
    return Sample.of(code, ((start, bodies[number][0]) for number, start in starts.items()))


def _names(insn: Insn) -> bool:
    """Whether the instruction names a function of the program."""
    return (insn.code == 0x85 and insn.src == 1) or (insn.code == 0x18 and insn.src == 4)


def prologue(m: Maker, depth: int = 8) -> None:
    """Keep the context, write the upper stack."""
    m.code.append(movr(6, 1))
    for off in range(8, 8 * depth + 8, 8):
        if m.rng.random() < 0.9:
            m.code.append(I(0x7A, 10, 0, -off, m.rng.choice((0, 0, 1, 7))))


def _value(m: Maker, register: int, word: str) -> None:
    """Something that fits a parameter of that type, mostly."""
    r = m.rng
    if r.random() < 0.02:
        word = r.choice(("skb*", "int", "pair*"))
    if not word.endswith("*"):
        kind = r.random()
        m.code.append(mov(register, r.choice((0, 1, 7, -1))) if kind < 0.6 else I(0x61, register, 6, r.choice((0, 8, 16))))
    elif word.endswith("skb*"):
        m.code.append(movr(register, 6))
        if r.random() < 0.05:
            m.code.append(I(0x07, register, 0, 0, 4))
    else:
        kind = r.random()
        if kind < 0.5:
            m.code += [movr(register, 10), I(0x07, register, 0, 0, -r.choice((64, 64, 64, 16, 8, 24, 20)))]
        elif kind < 0.7:
            m.code += [I(0x18, register, 2, 0, r.choice((2, 2, 12, 13, NUMBER["kernel1"], NUMBER["timed1"]))), I(0, 0, 0, 0, r.choice((0, 0, 8, 48)))]
        elif kind < 0.85:
            m.code.append(mov(register, 0))
        else:
            m.code.append(movr(register, 7 if r.random() < 0.95 else 8))


def _looked_up(m: Maker, register: int, checked: float = 0.8) -> None:
    """register = a map value, checked or not."""
    r = m.rng
    m.code += [I(0x62, 10, 0, -4, r.choice((0, 1, 9))), *ldmap(1, r.choice((0, 0, 2, 3, NUMBER["plain"]))), movr(2, 10), I(0x07, 2, 0, 0, -4)]
    m.code.append(call(1))
    if r.random() < checked:
        m.code += [I(0x55, 0, 0, 2, 0), mov(0, 0), EXIT]
    m.code.append(movr(register, 0))


def _body(m: Maker, spec: str) -> None:
    """What a function does with its arguments."""
    r = m.rng
    words = SPECS[spec].args
    for number, word in enumerate(words[:5], 1):
        if r.random() < 0.5:
            continue
        if not word.endswith("*"):
            m.scalars.add(number)
            if r.random() < 0.5:
                m.alu()
        elif word.endswith("skb*"):
            m.code.append(I(0x61, r.choice((0, 7)), number, r.choice((0, 4, 16, 76))))
        else:
            if r.random() < 0.9:
                m.code += [I(0x55, number, 0, 2, 0), mov(0, 0), EXIT]
            wide, size = r.choice(((0x61, 4), (0x79, 8), (0x71, 1)))
            off = r.choice((0, 0, 0, 0, 8, 8, 60, 3, 16))
            m.code.append(I(wide, r.choice((0, 8)), number, off) if r.random() < 0.7 else I(0x7A if size == 8 else 0x62, number, 0, off, 1))
    if words[:1] == ("skb*",) or r.random() < 0.1:
        m.statements(r.randrange(0, 3), 2)
    kind = r.random()
    if kind < 0.6 or (kind < 0.94 and not m.scalars):
        m.code.append(mov(0, r.choice((0, 1, 2, 64))))
    elif kind < 0.94:
        m.code.append(movr(0, m.some()))
    elif kind < 0.97:
        m.code.append(movr(0, 10))
    m.code.append(EXIT)


def globals_(rng: random.Random) -> Sample:
    """Functions with global linkage among others: arguments by type, results used, each verified on its own."""
    names = [rng.choice(FINE if rng.random() < 0.93 else GLOBAL) for _ in range(rng.randrange(1, 4))]
    if rng.random() < 0.3:
        names.append(rng.choice(STATIC))
    main = Maker(rng)
    prologue(main)
    _looked_up(main, 7)
    main.scalar(8)
    for _ in range(rng.randrange(1, 3)):
        _call(main, names, rng.randrange(len(names)))
    bodies = [(rng.choice(("main", "main", "main", "main_global", "main_odd")), main.end())]
    for number, name in enumerate(names):
        body = Maker(rng)
        prologue(body, 2) if rng.random() < 0.3 else body.code.append(movr(6, 1))
        if rng.random() < 0.3 and number + 1 < len(names):
            # The context is in R6 where the first argument is one.
            _call(body, names, rng.randrange(number + 1 if rng.random() < 0.95 else 0, len(names)))
        _body(body, name)
        bodies.append((name, body.code))
    return link(bodies)


def _call(m: Maker, names: list[str], number: int) -> None:
    r = m.rng
    for register, word in enumerate(SPECS[names[number]].args[:5], 1):
        _value(m, register, word)
    m.code.append(invoke(number + 1))
    if r.random() < 0.4:
        m.code.append(movr(8, 0))
    if r.random() < 0.4:
        m.code += [I(0x57, 0, 0, 0, r.choice((7, 63)))] if r.random() < 0.9 else []
        m.code += [I(0x18, 1, 2, 0, 2), I(0), I(0x0F, 1, 0), I(0x71, 2, 1)]
    if r.random() < 0.1:
        m.code.append(I(0x79, 2, 10, -64))


def _callback_end(m: Maker) -> None:
    r = m.rng
    kind = r.random()
    if kind < 0.65:
        m.code.append(mov(0, r.choice((0, 0, 0, 0, 1, 1, 1, 2, -1))))
    elif kind < 0.8:
        m.code += [I(0x61, 0, 10, -4), I(0x57, 0, 0, 0, r.choice((1, 1, 3)))] if r.random() < 0.5 else [I(0xBF, 0, 1), I(0x57, 0, 0, 0, 1)]
    elif kind < 0.95:
        m.code += [mov(0, 0), I(0x61, 1, 10, -4), I(r.choice((0x15, 0x25, 0x55)), 1, 0, 1, r.choice((0, 3))), mov(0, 1)]
    elif kind < 0.98:
        m.code.append(movr(0, r.choice((1, 2, 10))))
    m.code.append(EXIT)


def _use_context(m: Maker, register: int) -> None:
    """Work on what the caller passed as the callback's context: its stack, mostly."""
    r = m.rng
    for _ in range(r.randrange(0, 3)):
        m.code.append(r.choice((
            I(0x79, 7, register, 0), I(0x7A, register, 0, 0, 1), I(0x61, 7, register, 8), I(0x62, register, 0, 12, 5), I(0x7A, register, 0, 8, 0),
            I(0xDB, register, 10, 0, 0) if r.random() < 0.1 else I(0x79, 7, register, 8), I(0x79, 7, register, r.choice((-8, 0, 8, 64))), I(0x55, register, 0, 1, 0),
            *((I(0x7B, register, 10, 8), I(0x7B, register, register, 0)) if r.random() < 0.1 else ()))))


def callbacks(rng: random.Random) -> Sample:
    """for_each_map_elem, loop and user_ringbuf_drain with callbacks, nested and with what they may return."""
    main = Maker(rng)
    prologue(main)
    main.scalar(8)
    names = ["s_args1", "s_args25", "s_args0"][: rng.randrange(1, 4)]
    kinds = [rng.choice(("each", "each", "loop", "loop", "drain")) for _ in names]
    _helper(main, kinds[0], 1, len(names))
    if rng.random() < 0.3:
        _helper(main, rng.choice(kinds), rng.randrange(1, len(names) + 1), len(names))
    if rng.random() < 0.5:
        main.code.append(I(0x79, 3, 10, -rng.choice((8, 16, 24))))
    if rng.random() < 0.3:
        main.code += [I(0x18, 1, 2, 0, 2), I(0), I(0x79, 2, 10, -16), I(0x0F, 1, 2), I(0x71, 2, 1)]
    bodies = [("main", main.end())]
    for number, (name, kind) in enumerate(zip(names, kinds, strict=True), 1):
        body = Maker(rng)
        context = {"each": 4, "loop": 2, "drain": 2}[kind]
        body.code.append(movr(9, context))
        _callback_body(body, kind)
        _use_context(body, rng.choice((context, 9)))
        if number < len(names) and rng.random() < 0.7:
            body.code += [mov(6, 0), movr(8, 9)]
            _helper(body, kinds[number], number + 1, len(names), nested=True)
        elif rng.random() < 0.05:
            _helper(body, kind, number, len(names), nested=True)
        _callback_end(body)
        bodies.append((name if rng.random() < 0.99 else rng.choice(GLOBAL), body.code))
    return link(bodies)


def _callback_body(m: Maker, kind: str) -> None:
    """What the arguments of each kind of callback are good for."""
    r = m.rng
    if kind == "each":
        m.code += r.choice((
            [], [I(0x61, 7, 2, 0)], [I(0x79, 7, 3, 0)], [I(0x79, 7, 3, r.choice((8, 40, 48)))], [I(0x62, 2, 0, 0, 1)], [I(0x7A, 3, 0, 8, 1)],
            [I(0x61, 7, 2, 4)], [movr(6, 4), call(1), movr(4, 6)], [movr(6, 4), call(3), movr(4, 6)], [I(0x69, 7, 2, 2)],
            [movr(7, 2), I(0x0F, 7, 7)] if r.random() < 0.1 else [movr(7, 2)],
        ))
    elif kind == "loop":
        m.code += r.choice(([], [movr(7, 1)], [I(0x57, 1, 0, 0, 7), I(0x0F, 2, 1)], [I(0x25, 1, 0, 1, 5), movr(7, 1)]))
    else:
        m.code += r.choice((
            [], [movr(6, 2), mov(2, r.choice((0, 8))), mov(3, 8), call(203), movr(2, 6), movr(9, 6)], [I(0x79, 7, 1, 0)] if r.random() < 0.1 else [],
            [movr(6, 2), movr(3, 1), movr(1, 10), I(0x07, 1, 0, 0, -8), mov(2, 8), mov(4, 0), mov(5, 0), call(201), movr(2, 6), movr(9, 6)],
            [movr(6, 2), mov(2, 0), I(0x7A, 10, 0, -8, 1), movr(3, 10), I(0x07, 3, 0, 0, -8), mov(4, 8), mov(5, 0), call(202), movr(2, 6)],
            [movr(6, 2), mov(2, 0), call(r.choice((199, 200))), movr(2, 6)] if r.random() < 0.1 else [],
        ))
    if r.random() < 0.2:
        m.code.append(I(0x7A, 10, 0, -r.choice((8, 16, 64, 256, 512)), 0))


def _helper(m: Maker, kind: str, number: int, functions: int, nested: bool = False) -> None:
    """One call of a helper with a callback."""
    r = m.rng
    context = r.random()
    code: Code = []
    if context < 0.9:
        code += [movr(3, 8 if nested else 10), *([] if nested else [I(0x07, 3, 0, 0, -16)])]
    elif context < 0.95:
        code.append(mov(3, 0))
    else:
        code.append(movr(3, r.choice((6, 8))))
    if kind == "loop":
        first = [mov(1, r.choice((0, 1, 2, 5, 100, 1 << 23, (1 << 23) + 1)))] if r.random() < 0.7 else [movr(1, 8)]
    else:
        first = ldmap(1, r.choice((0, 1, 3, 4, 7, 0, 1, 3, 4, 7, 0, 1, 3, 4, 7, 8, 9, 14) if kind == "each" else (15,) * 15 + (6,)))
    if r.random() < 0.02:
        first = [movr(1, 6)]
    target = number if r.random() < 0.98 else r.randrange(functions + 1)
    m.code += [*first, *address(2, target), *code, mov(4, 0 if r.random() < 0.9 else r.choice((1, 2)))]
    if r.random() < 0.03:
        m.code.append(movr(2, 10))
    m.code.append(call({"each": 164, "loop": 181, "drain": 209}[kind]))


def depth(rng: random.Random) -> Sample:
    """Chains of static functions: frames, stack of a chain, and tail calls below."""
    count = rng.choice((1, 2, 3, 4, 5, 6, 7, 7, 8))
    tail = rng.random() < 0.5
    big = rng.choice((8, 16, 56, 64, 72, 128, 240, 256, 264, 496, 512))
    names = [rng.choice(("s_args0", "s_args2", "s_args3", "s_gives0", "s_gives9") if rng.random() < 0.15 else ("s_args0",)) for _ in range(count)]
    bodies: list[tuple[str, Code]] = []
    for number in range(count + 1):
        m = Maker(rng)
        m.code.append(movr(6, 1))
        stack = rng.choice((0, 0, 8, 16, big, 512 // (count + 1) // 8 * 8, rng.randrange(1, 65) * 8))
        if stack:
            m.code.append(I(0x7A, 10, 0, -min(stack, 512), 0))
        if number < count:
            m.code += [movr(1, 6), invoke(number + 1)]
            if rng.random() < 0.2:
                m.code += [movr(1, 6), invoke(rng.randrange(max(1, number), count + 1))]
        if tail and (number == count or rng.random() < 0.2):
            _tail(m)
        if rng.random() < 0.1:
            m.code.append(I(rng.choice((0x20, 0x28, 0x30)), 0, 0, 0, rng.choice((0, 12))))
        if rng.random() < 0.1 and number:
            m.code.append(I(0x79, 3, 10, -8))
        m.code += [mov(0, 0), EXIT] if rng.random() < 0.95 else [EXIT]
        bodies.append((names[number - 1] if number else "main", m.code))
    return link(bodies)


def _tail(m: Maker) -> None:
    r = m.rng
    m.code += [movr(1, 6), *ldmap(2, r.choice((5,) * 12 + (0,)))]
    m.code += [mov(3, r.choice((0, 1, 9)))] if r.random() < 0.6 else [I(0x61, 3, 6, 48)]
    m.code.append(call(12))


def tails(rng: random.Random) -> Sample:
    """Tail calls and packet loads in functions of all linkages, with and without what they need."""
    names = [rng.choice(("s_args2", "s_args3", "g_args2", "g_args3", "s_gives2") * 4 + ("s_gives0", "s_gives6", "s_gives9"))
             for _ in range(rng.randrange(1, 3))]  # fmt: skip
    bodies: list[tuple[str, Code]] = []
    for number in range(len(names) + 1):
        m = Maker(rng)
        m.code.append(movr(6, 1))
        if rng.random() < 0.5:
            m.scalar(7)
        if number < len(names):
            m.code += [movr(1, 6), mov(2, 0), invoke(rng.randrange(number + 1, len(names) + 1))]
            if rng.random() < 0.3:
                m.code += [I(0x18, 1, 2, 0, 2), I(0), I(0x57, 0, 0, 0, 63), I(0x0F, 1, 0), I(0x71, 2, 1)]
        if rng.random() < 0.6:
            _tail(m)
        if rng.random() < 0.5:
            m.code.append(I(rng.choice((0x20, 0x28, 0x30)), 0, 0, 0, rng.choice((0, 12, -4096))))
        if rng.random() < 0.2:
            m.code += [*ldmap(1, 6), mov(2, 8), mov(3, 0), call(131), I(0x15, 0, 0, 3, 0), movr(1, 0), mov(2, 0), call(132)]
        m.code += [mov(0, rng.choice((0, 1))), EXIT] if rng.random() < 0.95 else [EXIT]
        bodies.append((names[number - 1] if number else "main", m.code))
    return link(bodies)


FEATURES: dict[str, Callable[[random.Random], Sample]] = {
    "globals": globals_, "callbacks": callbacks, "depth": depth, "tails": tails,
}  # fmt: skip
