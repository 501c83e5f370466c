# ruff: noqa: E501
"""More nearly right programs: every helper with arguments made for its types, linked values, spills, many joins."""

from __future__ import annotations

import random

from verifier_generate import EDGES, Code, I, Maker, call, ldmap, mov, movr

from pktbpf.abi.helpers import ROWS, Arg, Helper

# Maps by number (verifier_oracle.MAPS) that a helper takes.
MAP_OF = {
    1: (0, 1, 3, 4, 7, 8, 12, 13), 2: (0, 1, 7), 3: (1, 7, 8), 12: (5,), 25: (16,), 87: (9, 10, 11), 88: (9, 10), 89: (9, 10, 11),
    130: (6,), 131: (6,), 134: (6,), 198: (6,), 164: (0, 1, 3), 195: (3, 4), 209: (15,), 22: (16,), 55: (16,),
}  # fmt: skip
STORE = {1: 0x72, 2: 0x6A, 4: 0x62, 8: 0x7A}


def fill(m: Maker, chance: float = 0.8) -> None:
    """Write most of the stack down to -64."""
    for off in range(8, 72, 8):
        if m.rng.random() < chance:
            m.code.append(I(0x7A, 10, 0, -off, m.imm()))


def stack_pointer(m: Maker, register: int, aligned: bool = True) -> None:
    """register = fp - something"""
    off = m.rng.choice((8, 16, 24, 32, 64) if aligned or m.rng.random() < 0.8 else (4, 12, 1, 63))
    m.code += [movr(register, 10), I(0x07, register, 0, 0, -off)]


def argument(m: Maker, row: Helper, number: int, arg: Arg) -> None:
    """Code that puts something fitting into register `number`."""
    r = m.rng
    if arg.null and r.random() < 0.3:
        m.code.append(mov(number, 0))
    elif arg.kind == "ctx":
        m.code.append(movr(number, 6))
    elif arg.kind == "map":
        m.code += ldmap(number, r.choice(MAP_OF.get(row.id, (0, 1, 2, 3, 9, 15))))
    elif arg.kind in ("key", "value", "mem", "fixed", "stack", "dynptr", "btf_any"):
        if arg.kind in ("mem", "value", "key") and r.random() < 0.3:
            m.code += [I(0x18, number, 2, 0, r.choice((0, 2, 2, 12, 13))), I(0, 0, 0, 0, r.choice((0, 0, 4, 8, 56)))]
        else:
            stack_pointer(m, number, arg.kind != "mem")
    elif arg.kind == "const_str":
        m.code += [I(0x18, number, 2, 0, 12), I(0, 0, 0, 0, r.choice((0, 4)))]
    elif arg.kind in ("size", "size0", "alloc_size0"):
        size(m, number)
    elif arg.kind in ("ringbuf_mem", "sock_common", "btf_sock_common", "btf", "timer", "spin_lock", "kptr"):
        m.code += r.choice(([movr(number, 0)], [movr(number, 7)], [mov(number, 0)], [I(0x79, number, 6, 168)]))
    elif r.random() < 0.5:
        m.code.append(mov(number, r.choice((0, 0, 1, 2, 8, 64))))
    else:
        m.scalar(number)


def size(m: Maker, number: int) -> None:
    """A constant, or a value with a bound that may suffice."""
    r = m.rng
    if r.random() < 0.6:
        m.code.append(mov(number, r.choice((0, 1, 4, 8, 8, 16, 24, 32, 64, 65, 512, -1))))
        return
    m.code.append(I(0x61, number, 6, 0))
    kind = r.random()
    if kind < 0.5:
        m.code.append(I(0x57, number, 0, 0, r.choice((7, 15, 31, 63, 64))))
    elif kind < 0.8:
        m.code += [
            I(r.choice((0x25, 0x65, 0x26)), number, 0, 1, r.choice((8, 16, 63))),
            I(0x05, 0, 0, 1),
            mov(number, 4),
        ]
    if r.random() < 0.4:
        m.code.append(I(0x07, number, 0, 0, r.choice((1, 8, -1))))


def anyhelper(rng: random.Random, privilege: str = "root") -> Code:
    """Calls of any helper, with arguments of the right kinds."""
    m = Maker(rng)
    m.code.append(movr(6, 1))
    fill(m)
    m.scalar(7)
    rows = [row for row in ROWS if privilege != "none" or row.privilege == "none" or rng.random() < 0.05]
    for _ in range(rng.randrange(1, 4)):
        row = rng.choice(rows)
        for number, arg in enumerate(row.arg_types, 1):
            argument(m, row, number, arg)
        m.code.append(call(row.id))
        if row.ret.endswith("or_null") or "_or_null:" in row.ret:
            m.code.append(movr(7, 0))
            if rng.random() < 0.8:
                m.code += [I(0x55, 0, 0, 2, 0), mov(0, 0), I(0x95)]
            if rng.random() < 0.5:
                m.code.append(I(rng.choice((0x79, 0x61, 0x71)), 1, 0, rng.choice((0, 4, 8, 12))))
        elif rng.random() < 0.3:
            m.code += [movr(7, 0)]
        if rng.random() < 0.3:
            m.code.append(I(rng.choice((0x79, 0x61)), 8, 10, -rng.choice((8, 16, 32))))
    return m.end()


def linked(rng: random.Random) -> Code:
    """Copies of a value, with constants added, compared; spilled copies; what one learns the others know."""
    m = Maker(rng)
    m.code.append(movr(6, 1))
    off, width = rng.choice(((0, 0x61), (8, 0x61), (48, 0x79), (16, 0x69)))
    m.code.append(I(width, 7, 6, off))
    m.scalars = {7}
    for _ in range(rng.randrange(2, 9)):
        kind = rng.random()
        if kind < 0.35:
            n = rng.choice((0, 1, 2, 3, 8, 9))
            m.code.append(I(rng.choice((0xBF, 0xBF, 0xBC)), n, m.some()))
            m.scalars.add(n)
        elif kind < 0.55:
            m.code.append(I(rng.choice((0x07, 0x07, 0x04)), m.some(), 0, 0, rng.choice((1, 4, -1, 8, -8, 1 << 30))))
        elif kind < 0.7:
            m.code.append(I(rng.choice((0x7B, 0x63)), 10, m.some(), -rng.choice((8, 16, 4))))
        elif kind < 0.8:
            m.code.append(I(rng.choice((0x79, 0x61, 0x69)), rng.choice((0, 1, 2, 3)), 10, -rng.choice((8, 16, 4))))
        else:
            known = m.some()
            m.branch(lambda known=known: m.code.append(I(0x07, known, 0, 0, 1)))  # type: ignore[misc]
    n = m.some()
    limit = rng.choice((7, 15, 56, 63, 64, 48))
    m.code += [I(rng.choice((0x25, 0x65, 0x35, 0x26)), n, 0, 4, limit), I(0x18, 4, 2, 0, 2), I(0)]
    m.code += [I(0x0F, 4, m.some()), I(rng.choice((0x71, 0x79)), 5, 4)]
    return m.end()


def spills(rng: random.Random, privilege: str = "root") -> Code:
    """Registers of all kinds to the stack and back in several sizes, at constant and varying offsets."""
    m = Maker(rng)
    m.code.append(movr(6, 1))
    if privilege == "none" or rng.random() < 0.5:
        fill(m, 0.95)
    m.scalar(7)
    m.code += [movr(8, 10), I(0x07, 8, 0, 0, -rng.choice((8, 16, 32, 64)))]
    for _ in range(rng.randrange(2, 9)):
        base, low = rng.choice(((10, -64), (10, -16), (8, -8)))
        off = low + 8 * rng.randrange(3 if low == -64 else 1)
        size = rng.choice((8, 8, 8, 4, 2, 1))
        off += rng.randrange(0, 8, size if rng.random() < 0.97 else 1)
        wide = {8: 0x18, 4: 0, 2: 8, 1: 0x10}[size]
        kind = rng.random()
        if kind < 0.35:
            m.code.append(I(0x63 | wide, base, rng.choice((6, 7, 7, 8, 10) if size == 8 else (7, 7, 7, 7, 6)), off))
        elif kind < 0.45:
            m.code.append(I(STORE[size], base, 0, off, rng.choice(EDGES)))
        elif kind < 0.8:
            n = rng.choice((0, 1, 2, 3, 7) if size < 8 else (0, 1, 2, 3))
            m.code.append(I(rng.choice((0x61, 0x61, 0x81) if size < 8 else (0x61,)) | wide, n, base, off))
            m.scalars.add(n)
        elif kind < 0.9:
            m.code += [I(0x61, 9, 6, 0), I(0x57, 9, 0, 0, rng.choice((7, 8, 15, 56))), movr(1, 8), I(0x0F, 1, 9)]
            m.code.append(rng.choice((I(0x72, 1, 0, 0, 0), I(0x71, 2, 1), I(0x7A, 1, 0, 0, 0), I(0x73, 1, 7))))
        else:
            m.branch(lambda: m.stack())
    return m.end()


def joins(rng: random.Random) -> Code:
    """Many branches that set a few registers and slots differently, then a use: what pruning must keep apart."""
    m = Maker(rng)
    m.code.append(movr(6, 1))
    for n in (7, 8, 9):
        m.scalar(n)
    if rng.random() < 0.5:
        fill(m, 0.3)
    for _ in range(rng.randrange(2, 7)):
        m.branch(lambda: m.code.append(rng.choice((
            mov(7, rng.choice((0, 4, 60, 64))), I(0x57, 8, 0, 0, 31), movr(9, 7), I(0x7B, 10, 8, -8), I(0x7A, 10, 0, -8, 0),
            I(0x7B, 10, 6, -16), I(0x07, 7, 0, 0, 1), movr(8, 10), I(0x73, 10, 7, -8), I(0xBC, 7, 8), I(0x79, 7, 10, -8),
        ))))  # fmt: skip
    m.code += [I(0x79, 8, 10, -8)] if rng.random() < 0.4 else []
    n = rng.choice((7, 8, 9))
    m.code += [I(0x57, n, 0, 0, 63)] if rng.random() < 0.3 else [I(0x25, n, 0, 4, 63)]
    m.code += [I(0x18, 1, 2, 0, 2), I(0), I(0x0F, 1, n), I(0x71, 2, 1)]
    return m.end()


def pointers(rng: random.Random) -> Code:
    """Arithmetic with pointers of several kinds, known and unknown amounts, both orders, subtraction, compares."""
    m = Maker(rng)
    m.code.append(movr(6, 1))
    m.scalar(7)
    which = rng.random()
    if which < 0.5:
        m.code += [I(0x18, 8, 2, 0, 2), I(0, 0, 0, 0, rng.choice((0, 8, 16)))]
    elif which < 0.8:
        fill(m, 0.9)
        m.code += [movr(8, 10), I(0x07, 8, 0, 0, -rng.choice((16, 32, 64)))]
    else:
        m.code.append(movr(8, 6))
    for _ in range(rng.randrange(1, 4)):
        kind = rng.random()
        if kind < 0.4:
            code = 0x07 if rng.random() < 0.85 else rng.choice((0x17, 0x04, 0x57))
            m.code.append(I(code, 8, 0, 0, rng.choice((1, 4, 8, -8, 8) if rng.random() < 0.9 else (16, 1 << 29))))
        elif kind < 0.8:
            if rng.random() < 0.7:
                m.code.append(I(0x57, 7, 0, 0, rng.choice((3, 7, 15, 7))))
            if rng.random() < 0.2:
                m.code += [movr(9, 7), I(0x0F, 9, 8), movr(8, 9)]
            else:
                m.code.append(I(rng.choice((0x0F, 0x0F, 0x0F, 0x1F)), 8, 7))
        elif kind < 0.9:
            m.code.append(I(rng.choice((0x1D, 0x5D, 0x2D, 0xAD, 0x1E)), 8, rng.choice((7, 6, 8, 10)), 0))
        else:
            m.code += [movr(9, 8), rng.choice((I(0x1F, 9, 8), I(0x87, 9), I(0x0F, 9, 8), I(0xD7, 9, 0, 0, 32)))]
    m.code.append(
        rng.choice((I(0x71, 1, 8), I(0x79, 1, 8, -8), I(0x72, 8, 0, 4, 1), I(0x71, 1, 8, 1), I(0x73, 8, 7, 0)))
    )
    return m.end()


def encodings(rng: random.Random) -> Code:
    """A correct program with one instruction of random encoding."""
    m = Maker(rng)
    m.code.append(movr(6, 1))
    fill(m, 0.5)
    m.statements(3)
    small = (0, 0, 0, 1, 2, 8, 16, 32, 64, -8, -16)
    code = rng.choice(
        (rng.randrange(256), rng.choice((0xC3, 0xDB, 0xD3, 0x18, 0x05, 0x06, 0x8D, 0x85, 0xE5, 0xD4, 0xBF, 0xB7)))
    )
    m.code.append(
        I(code, rng.randrange(11), rng.choice((0, 0, 1, 2, rng.randrange(16))), rng.choice(small), rng.choice(small))
    )
    if code == 0xC3 or code == 0xDB:
        imm = rng.choice((0, 1, 0x40, 0x41, 0x50, 0x51, 0xA0, 0xA1, 0xE1, 0xF1, 0x100, 0x110, 0x20))
        m.code[-1] = m.code[-1]._replace(dst=10, src=rng.choice((6, 7, 8)), off=-rng.choice((8, 16, 4)), imm=imm)
    return m.end()


def outer(rng: random.Random) -> Code:
    """A map in a map, and sockets from the context and a socket map."""
    m = Maker(rng)
    m.code.append(movr(6, 1))
    if rng.random() < 0.5:
        m.code += [
            I(0x62, 10, 0, -4, 0),
            *ldmap(1, 14),
            movr(2, 10),
            I(0x07, 2, 0, 0, -4),
            call(1),
            I(0x15, 0, 0, 0, 0),
        ]
        at = len(m.code) - 1
        m.code += [movr(1, 0), movr(2, 10), I(0x07, 2, 0, 0, -4), call(1), I(0x15, 0, 0, 1, 0)]
        m.code.append(I(0x79, 1, 0, rng.choice((0, 4, 8))))
        m.code[at] = m.code[at]._replace(off=len(m.code) - at - 1)
    else:
        m.code += [I(0x79, 1, 6, 168), I(0x15, 1, 0, 1, 0)]
        m.code.append(
            I(rng.choice((0x61, 0x69, 0x71, 0x79)), 2, 1, rng.choice((0, 4, 8, 24, 44, 48, 50, 52, 72, 76, 80)))
        )
    return m.end()
