"""Programs that are nearly right: valid ones of every feature, and mutations of them. Seeded, no kernel needed.

A program is a list of Insn; maps are named by their number in verifier_oracle.MAPS. `programs(seed, count, feature)`
yields about as many refused as accepted ones.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from verifier_mutate import mutate
from verifier_oracle import MAPS, Sample

from pktbpf.isa.extended import Insn

I = Insn  # noqa: E741
Code = list[Insn]
EXIT = I(0x95)


def mov(dst: int, imm: int) -> Insn:
    return I(0xB7, dst, 0, 0, imm)


def movr(dst: int, src: int) -> Insn:
    return I(0xBF, dst, src)


def ldmap(dst: int, number: int) -> Code:
    return [I(0x18, dst, 1, 0, number), I(0)]


def call(number: int) -> Insn:
    return I(0x85, 0, 0, 0, number)


ALU = (0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x90, 0xA0, 0xC0)
JMP = (0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0xA0, 0xB0, 0xC0, 0xD0)
EDGES = (0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 255, 256, -1, -2, -4, -8, -16, -64, -128, 0x7FFFFFFF,
         -0x80000000, 0x10000, 0xFFFF, 48, 47, 49)  # fmt: skip
CTX = ((0, 4), (4, 4), (8, 4), (16, 2), (24, 1), (48, 8), (52, 4), (68, 4), (84, 4), (164, 4), (176, 4), (64, 4))


class Maker:
    """One random program under construction: which registers hold scalars, and a body that grows."""

    def __init__(self, rng: random.Random):
        self.rng = rng
        self.code: Code = []
        self.scalars: set[int] = set()

    def imm(self) -> int:
        r = self.rng
        return r.choice(EDGES) if r.random() < 0.7 else r.randint(-(1 << 31), (1 << 31) - 1)

    def some(self) -> int:
        if not self.scalars:
            self.scalar()
        return self.rng.choice(sorted(self.scalars))

    def dst(self) -> int:
        return self.rng.choice((0, 1, 2, 3, 4, 5, 7, 8, 9))

    def scalar(self, register: int | None = None) -> int:
        """A register with an unknown or a constant value."""
        r = self.rng
        n = self.dst() if register is None else register
        kind = r.random()
        if kind < 0.35:
            off, size = r.choice(CTX)
            self.code.append(I({1: 0x71, 2: 0x69, 4: 0x61, 8: 0x79}[size], n, 6, off))
        elif kind < 0.5:
            self.code += [I(0x18, n, 0, 0, self.imm()), I(0, 0, 0, 0, self.imm())]
        elif kind < 0.6 and self.scalars:
            self.code.append(movr(n, self.some()))
        else:
            self.code.append(I(r.choice((0xB7, 0xB4)), n, 0, 0, self.imm()))
        self.scalars.add(n)
        return n

    def alu(self) -> None:
        r = self.rng
        wide = r.choice((7, 4))
        kind = r.random()
        if kind < 0.1:
            self.code.append(I(0x80 | wide, self.some()))
        elif kind < 0.2:
            n = self.dst()
            off = r.choice((0, 8, 16, 32)) if wide == 7 else r.choice((0, 8, 16))
            self.code.append(I(0xB8 | wide, n, self.some(), off))
            self.scalars.add(n)
        elif kind < 0.25:
            self.code.append(I(r.choice((0xD4, 0xDC, 0xD7)), self.some(), 0, 0, r.choice((16, 32, 64))))
        else:
            op = r.choice(ALU)
            if r.random() < 0.5:
                imm = self.imm()
                if op in (0x60, 0x70, 0xC0):
                    imm = r.randrange(64 if wide == 7 else 32)
                if op in (0x30, 0x90) and imm == 0:
                    imm = 1
                self.code.append(I(op | wide, self.some(), 0, 0, imm))
            else:
                self.code.append(I(op | wide | 8, self.some(), self.some()))

    def branch(self, body: Callable[[], None]) -> None:
        """if ... goto past body"""
        r = self.rng
        wide = r.choice((5, 5, 6))
        op = r.choice(JMP)
        at = len(self.code)
        if r.random() < 0.65:
            self.code.append(I(op | wide, self.some(), 0, 0, self.imm()))
        else:
            self.code.append(I(op | wide | 8, self.some(), self.some()))
        at = len(self.code) - 1
        known = set(self.scalars)
        body()
        self.scalars = known & self.scalars
        self.code[at] = self.code[at]._replace(off=len(self.code) - at - 1)

    def stack(self) -> None:
        r = self.rng
        size = r.choice((1, 2, 4, 8))
        off = -r.randrange(1, 9) * 8 + (r.randrange(0, 8, size) if r.random() < 0.4 else 0)
        if r.random() < 0.55:
            if r.random() < 0.3:
                self.code.append(I({1: 0x72, 2: 0x6A, 4: 0x62, 8: 0x7A}[size], 10, 0, off, self.imm()))
            else:
                self.code.append(I({1: 0x73, 2: 0x6B, 4: 0x63, 8: 0x7B}[size], 10, self.some(), off))
        else:
            n = self.dst()
            code = {1: (0x71, 0x91), 2: (0x69, 0x89), 4: (0x61, 0x81), 8: (0x79, 0x79)}[size]
            self.code.append(I(r.choice(code), n, 10, off))
            self.scalars.add(n)

    def statements(self, count: int, depth: int = 0) -> None:
        for _ in range(count):
            kind = self.rng.random()
            if kind < 0.4:
                self.alu()
            elif kind < 0.55:
                self.scalar()
            elif kind < 0.75:
                self.stack()
            elif depth < 3:
                self.branch(lambda: self.statements(self.rng.randrange(1, 4), depth + 1))

    def end(self) -> Code:
        self.code += [mov(0, 0), EXIT]
        return self.code


def arithmetic(rng: random.Random) -> Code:
    """Values, branches and stack, then a use that depends on a bound."""
    m = Maker(rng)
    m.code.append(movr(6, 1))
    m.statements(rng.randrange(3, 14))
    if rng.random() < 0.8:
        n = m.some()
        m.branch(lambda: _use(m, n))
    return m.end()


def _use(m: Maker, n: int) -> None:
    """Offset into a map value or the stack by register n."""
    r = m.rng
    if r.random() < 0.6:
        m.code += [*([I(0x57, n, 0, 0, r.choice((7, 15, 63, 8, 48)))] if r.random() < 0.6 else []), I(0x18, 1, 2, 0, 2)]
        m.code += [I(0), I(0x0F, 1, n), I(r.choice((0x71, 0x61, 0x79, 0x72)), *((2, 1) if True else ()), 0)]
        if m.code[-1].code == 0x72:
            m.code[-1] = I(0x72, 1, 0, 0, 5)
    else:
        m.code += [
            I(0x57, n, 0, 0, r.choice((7, 15, 31, 8))),
            movr(1, 10),
            I(0x07, 1, 0, 0, -r.choice((8, 16, 32, 64))),
        ]
        m.code += [I(0x0F, 1, n), r.choice((I(0x71, 2, 1), I(0x72, 1, 0, 0, 0), I(0x73, 1, n), I(0x79, 2, 1)))]


def lookup(rng: random.Random) -> Code:
    """Key on the stack, lookup, null check, access with a bound."""
    number = rng.choice((0, 1, 2, 3, 4, 7, 8, 12, 13, 0, 1))
    key = {1: 8, 8: 8}.get(number, 4)
    size = {0: 16, 1: 48, 2: 64, 3: 8, 4: 16, 7: 8, 8: 8, 12: 16, 13: 16}[number]
    m = Maker(rng)
    m.code.append(movr(6, 1))
    m.scalar(7)
    m.scalar(8)
    m.code.append(I(0x7A if key == 8 else 0x62, 10, 0, -8, rng.choice((0, 1, 2, 3, 5, -1))) if rng.random() < 0.5
                  else I(0x7B if key == 8 else 0x63, 10, 7, -8))  # fmt: skip
    if rng.random() < 0.3:
        m.statements(3)
    m.code += [*ldmap(1, number), movr(2, 10), I(0x07, 2, 0, 0, -8), call(1)]
    m.code.append(I(0x15, 0, 0, 0, 0))
    at = len(m.code) - 1
    if rng.random() < 0.5:
        m.code.append(I(0x79, rng.choice((1, 9)), 0, rng.randrange(0, size, 8)))
    if rng.random() < 0.6:
        mask = rng.choice((3, 7, 15, 31, size - 1, size))
        if rng.random() < 0.5:
            m.code.append(I(0x57, 7, 0, 0, mask))
        else:
            m.code += [I(0xB5, 7, 0, 1, rng.choice((size - 1, size - 4, size - 8, size, 3))), mov(7, 0)]
        m.code.append(I(0x0F, 0, 7))
        code = rng.choice(((0x71, 1), (0x69, 2), (0x61, 4), (0x79, 8)))
        m.code.append(I(code[0], 3, 0, rng.choice((0, 0, 1, 4, -1))))
    else:
        m.code.append(rng.choice((I(0x7B, 0, 8, 0), I(0x63, 0, 7, 4), I(0xDB, 0, 8, 0, 0), I(0x7A, 0, 0, 0, 1),
                                  I(0xDB, 0, 8, 0, 1), I(0xC3, 0, 7, 0, 0xF1), I(0x61, 5, 0, 0))))  # fmt: skip
    m.code[at] = m.code[at]._replace(off=len(m.code) - at - 1)
    return m.end()


def helpers_(rng: random.Random) -> Code:
    """One or two helper calls with memory arguments."""
    m = Maker(rng)
    m.code.append(movr(6, 1))
    for _ in range(rng.randrange(1, 3)):
        rng.choice((_load_bytes, _update, _ring, _strtol, _plain, _queue, _tail, _strncmp))(m)
    return m.end()


def _buffer(m: Maker, register: int) -> None:
    off = -m.rng.choice((8, 16, 24, 32, 64))
    m.code += [movr(register, 10), I(0x07, register, 0, 0, off)]


def _load_bytes(m: Maker) -> None:
    r = m.rng
    m.code += [movr(1, 6), mov(2, r.choice((0, 14, 1000)))]
    _buffer(m, 3)
    if r.random() < 0.6:
        m.code.append(mov(4, r.choice((1, 4, 8, 16, 0, 64))))
    else:
        m.code += [I(0x61, 4, 6, 0), I(0x57, 4, 0, 0, r.choice((7, 15, 31)))]
        if r.random() < 0.6:
            m.code.append(I(0x07, 4, 0, 0, 1))
    if r.random() < 0.2:
        m.code.append(mov(5, r.choice((0, 1))))
        m.code.append(call(68))
    else:
        m.code.append(call(26))
    if r.random() < 0.5:
        m.code.append(I(0x79, 3, 10, -r.choice((8, 16, 24))))


def _update(m: Maker) -> None:
    r = m.rng
    m.code += [I(0x7A, 10, 0, -8, r.choice((0, 1))), I(0x7A, 10, 0, -16, 1)]
    number = r.choice((0, 1, 3, 4, 7, 12, 13))
    for off in range(24, 72, 8):
        if r.random() < 0.8:
            m.code.append(I(0x7A, 10, 0, -off, 7))
    m.code += [*ldmap(1, number), movr(2, 10), I(0x07, 2, 0, 0, -8), movr(3, 10), I(0x07, 3, 0, 0, -64), mov(4, 0)]
    m.code.append(call(r.choice((2, 2, 3))))


def _ring(m: Maker) -> None:
    r = m.rng
    m.code += [*ldmap(1, 6), mov(2, r.choice((8, 16, 24))), mov(3, 0), call(131), I(0x15, 0, 0, 0, 0)]
    at = len(m.code) - 1
    if r.random() < 0.7:
        m.code.append(I(0x7A, 0, 0, r.choice((0, 8, 16)), 1))
    if r.random() < 0.3:
        m.code += [movr(7, 0), I(0x61, 1, 6, 0), I(0x25, 1, 0, 3, 5), movr(1, 7), mov(2, 0), call(132)]
        m.code += [I(0x05, 0, 0, 3), movr(1, 7), mov(2, 0), call(133)]
        m.code[at + 1 + [i.code for i in m.code[at + 1 :]].index(0x25)] = I(0x25, 1, 0, 4, 5)
    else:
        m.code += [movr(1, 0), mov(2, 0), call(r.choice((132, 133)))]
    m.code[at] = m.code[at]._replace(off=len(m.code) - at - 1)


def _strtol(m: Maker) -> None:
    r = m.rng
    m.code += [I(0x7A, 10, 0, -16, 0x31), movr(1, 10), I(0x07, 1, 0, 0, -16), mov(2, r.choice((4, 8, 0))), mov(3, 0)]
    m.code += [movr(4, 10), I(0x07, 4, 0, 0, r.choice((-8, -8, -4, -24))), call(r.choice((105, 106)))]


def _strncmp(m: Maker) -> None:
    r = m.rng
    m.code += [I(0x7A, 10, 0, -16, 0x31), movr(1, 10), I(0x07, 1, 0, 0, -16), mov(2, r.choice((4, 8, 0)))]
    m.code += [I(0x18, 3, 2, 0, 12), I(0, 0, 0, 0, r.choice((0, 4))), call(182)]


def _plain(m: Maker) -> None:
    r = m.rng
    m.code += [movr(1, 6), call(r.choice((5, 7, 8, 42, 46, 47, 125, 160, 208, 14, 15, 118, 122)))]
    if r.random() < 0.5:
        m.code += [movr(7, 0), I(0x57, 7, 0, 0, 7)]
        m.scalars.add(7)


def _queue(m: Maker) -> None:
    r = m.rng
    number = r.choice((9, 10, 11, 0))
    which = r.choice((87, 88, 89))
    m.code += [*([I(0x7A, 10, 0, -8, 3)] if r.random() < 0.6 else []), *ldmap(1, number), movr(2, 10)]
    m.code += [I(0x07, 2, 0, 0, -8), mov(3, 0), call(which)]
    if r.random() < 0.5:
        m.code.append(I(0x79, 1, 10, -8))


def _tail(m: Maker) -> None:
    r = m.rng
    m.code += [movr(1, 6), *ldmap(2, r.choice((5, 5, 5, 0)))]
    m.code += [mov(3, r.choice((0, 1, 9)))] if r.random() < 0.5 else [I(0x61, 3, 6, 48)]
    m.code.append(call(12))


def packet(rng: random.Random) -> Code:
    """LD_ABS and LD_IND, values kept over them."""
    m = Maker(rng)
    m.code.append(movr(6, 1))
    for _ in range(rng.randrange(1, 5)):
        if rng.random() < 0.3:
            m.scalar(rng.choice((7, 8, 9)))
        n = rng.random()
        if n < 0.6:
            m.code.append(I(rng.choice((0x20, 0x28, 0x30)), 0, 0, 0, rng.choice((0, 12, 14, 23, -4096, 1 << 20))))
        else:
            if not m.scalars & {7, 8, 9}:
                m.scalar(7)
            src = rng.choice(sorted(m.scalars & {7, 8, 9}))
            m.code.append(I(rng.choice((0x40, 0x48, 0x50)), 0, src, 0, rng.choice((0, 14, -1))))
        m.scalars = {x for x in m.scalars if x > 6} | {0}
        if rng.random() < 0.4:
            m.branch(lambda: m.statements(1, 3))
    return m.end()


def calls(rng: random.Random) -> Code:
    """Functions with arguments, pointers to the caller's stack, results used as bounds."""
    main, body = Maker(rng), Maker(rng)
    main.code.append(movr(6, 1))
    main.scalar(7)
    if rng.random() < 0.7:
        main.code.append(I(0x7B, 10, 7, -8) if rng.random() < 0.6 else I(0x7A, 10, 0, -8, 3))
    main.code += [movr(1, rng.choice((7, 6, 7))), movr(2, 10), I(0x07, 2, 0, 0, -8)]
    at = len(main.code)
    main.code.append(I(0x85, 0, 1, 0, 0))
    if rng.random() < 0.6:
        main.code += [I(0x57, 0, 0, 0, rng.choice((7, 15)))] if rng.random() < 0.4 else []
        main.code += [I(0x18, 1, 2, 0, 2), I(0), I(0x0F, 1, 0), I(0x71, 2, 1)]
    if rng.random() < 0.3:
        main.code.append(I(0x79, 3, 10, -8))
        main.scalars.add(3)
    main.code += [mov(0, 0), EXIT]
    entry = len(main.code)
    main.code[at] = I(0x85, 0, 1, 0, entry - at - 1)
    if rng.random() < 0.3:
        main.code.insert(at + 1, I(0x85, 0, 1, 0, 0))
        entry += 1
        main.code[at] = I(0x85, 0, 1, 0, entry - at - 1)
        main.code.insert(at + 1, mov(2, 0))
        main.code.insert(at + 1, mov(1, 1))
        entry += 2
        main.code[at] = I(0x85, 0, 1, 0, entry - at - 1)
        main.code[at + 3] = I(0x85, 0, 1, 0, entry - at - 4)
    body.code += [movr(7, 1), movr(8, 2)] if rng.random() < 0.5 else []
    body.scalars = {1, 7} if body.code else {1}
    kind = rng.random()
    if kind < 0.4:
        body.code += [I(0x79, 3, 2, 0), I(0x7B, 2, 3, 0)] if rng.random() < 0.5 else [I(0x7A, 2, 0, 0, 1)]
    if kind < 0.7:
        body.code += [movr(0, 1), I(0x57, 0, 0, 0, rng.choice((7, 31, 63, 127)))]
    else:
        body.code += [mov(0, rng.choice((0, 5, 63, 64)))]
        body.branch(lambda: body.code.append(mov(0, rng.choice((1, 63, 80)))))
    if rng.random() < 0.3:
        body.stack()
    return [*main.code, *body.code, EXIT]


def loops(rng: random.Random) -> Code:
    """Bounded loops, some of them endless or too long."""
    m = Maker(rng)
    m.code.append(movr(6, 1))
    m.scalar(7)
    counter = rng.choice((8, 9))
    m.code.append(mov(counter, 0))
    start = len(m.code)
    m.scalars -= {counter}
    m.statements(rng.randrange(0, 4), 2)
    if rng.random() < 0.5:
        m.code += [movr(1, 10), I(0x07, 1, 0, 0, -rng.choice((8, 16, 32))), I(0x0F, 1, counter), I(0x72, 1, 0, 0, 0)]
    m.code.append(I(0x07, counter, 0, 0, rng.choice((1, 1, 1, 2, 0))))
    bound = rng.choice((2, 4, 8, 16, 33))
    m.code.append(I(rng.choice((0xA5, 0x55, 0xC5, 0xB5)), counter, 0, start - len(m.code) - 1, bound))
    return m.end()


def maygoto(rng: random.Random) -> Code:
    """Loops whose rounds the kernel counts."""
    m = Maker(rng)
    m.code.append(movr(6, 1))
    m.scalar(7)
    m.code.append(mov(8, 0))
    start = len(m.code)
    m.code.append(I(0xE5, 0, 0, 0, 0))
    m.statements(rng.randrange(0, 3), 2)
    if rng.random() < 0.1:
        m.code += [I(0x18, 1, 2, 0, 2), I(0), movr(2, 8)]
        m.code += [I(0x57, 2, 0, 0, rng.choice((63, 15, 64)))] if rng.random() < 0.7 else []
        m.code += [I(0x0F, 1, 2), I(0x71, 3, 1)]
    m.code += [I(0x07, 8, 0, 0, 1), I(0x05, 0, 0, start - len(m.code) - 2)]
    m.code[start] = I(0xE5, 0, 0, len(m.code) - start - 1)
    return m.end()


def dynptrs(rng: random.Random) -> Code:
    """Dynptrs over map values and ring buffers."""
    m = Maker(rng)
    m.code.append(movr(6, 1))
    ring = rng.random() < 0.5
    if ring:
        m.code += [
            *ldmap(1, 6),
            mov(2, rng.choice((8, 16, 32))),
            mov(3, 0),
            movr(4, 10),
            I(0x07, 4, 0, 0, -16),
            call(198),
        ]
    else:
        m.code += [I(0x18, 1, 2, 0, 2), I(0), mov(2, rng.choice((8, 64, 0, 65))), mov(3, 0), movr(4, 10)]
        m.code += [I(0x07, 4, 0, 0, -16), call(197)]
    kind = rng.random()
    if kind < 0.4:
        m.code += [movr(1, 10), I(0x07, 1, 0, 0, -16), mov(2, 0), mov(3, rng.choice((8, 4))), call(203)]
        m.code += [I(0x15, 0, 0, 1, 0), I(rng.choice((0x7A, 0x62)), 0, 0, rng.choice((0, 4)), 1)]
    elif kind < 0.7:
        m.code += [movr(1, 10), I(0x07, 1, 0, 0, -32), mov(2, rng.choice((8, 16))), movr(3, 10)]
        m.code += [I(0x07, 3, 0, 0, -16), mov(4, 0), mov(5, 0), call(201)]
    elif kind < 0.9:
        m.code += [I(0x7A, 10, 0, -24, 1), movr(1, 10), I(0x07, 1, 0, 0, -16), mov(2, 0), movr(3, 10)]
        m.code += [I(0x07, 3, 0, 0, -24), mov(4, 8), mov(5, 0), call(202)]
    if ring or rng.random() < 0.1:
        m.code += [movr(1, 10), I(0x07, 1, 0, 0, -16), mov(2, 0), call(rng.choice((199, 200)))]
    return m.end()


# Features whose programs are nearly all refused.
SELDOM = ("encodings", "kinds", "locks", "regions")


def features(privilege: str = "root") -> dict[str, Callable[[random.Random], Code | Sample]]:
    """The makers whose programs have a chance with that privilege."""
    import verifier_features as more
    import verifier_fields
    import verifier_functions
    import verifier_kfuncs as kernel
    import verifier_objects as structures
    import verifier_whole as whole

    known: dict[str, Callable[[random.Random], Code | Sample]] = {
        "arithmetic": arithmetic, "lookup": lookup, "helpers": helpers_, "packet": packet, "outer": more.outer,
        "linked": more.linked, "joins": more.joins, "pointers": more.pointers, "encodings": more.encodings,
        **verifier_fields.FEATURES, **whole.STRAIGHT,
        "anyhelper": lambda rng: more.anyhelper(rng, privilege), "spills": lambda rng: more.spills(rng, privilege),
    }  # fmt: skip
    if privilege != "none":
        known |= {"calls": calls, "loops": loops, "maygoto": maygoto, "dynptrs": dynptrs}
        known |= kernel.FEATURES | verifier_functions.FEATURES | whole.FEATURES
    if privilege == "root":
        known |= structures.FEATURES
    return known


def program(seed: int, feature: str | None = None, privilege: str = "root") -> tuple[str, Sample]:
    """(feature, instructions) of one seed. Unprivileged programs mostly write their stack first."""
    rng = random.Random(seed)
    known = features(privilege)
    name = feature or rng.choice([name for name in sorted(known) for _ in range(1 if name in SELDOM else 4)])
    made = known[name](rng)
    sample = made if isinstance(made, Sample) else Sample.of(made)
    if privilege == "none" and rng.random() < 0.6:
        sample = Sample.of([I(0x7A, 10, 0, -off, off) for off in range(8, 80, 8)] + list(sample))
    for _ in range(rng.choice((0, 0, 0, 0, 0, 0, 1, 1, 2))):
        sample = mutate(sample, rng)
    # A map that does not exist is file descriptor 9999, so that the kernel's words are the same everywhere.
    return name, Sample.of((i._replace(imm=9999) if i.code == 0x18 and i.src in (1, 2) and not 0 <= i.imm < len(MAPS)
                            else i for i in sample), sample.functions)  # fmt: skip


def programs(
    first: int, count: int, feature: str | None = None, privilege: str = "root"
) -> Iterator[tuple[int, str, Sample]]:
    """(seed, feature, instructions) for `count` seeds."""
    for seed in range(first, first + count):
        yield seed, *program(seed, feature, privilege)
