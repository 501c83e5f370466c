# ruff: noqa: E501
"""Nearly right programs over maps with special fields, constants and kinds that helpers refuse."""

from __future__ import annotations

import random
from collections.abc import Callable

from verifier_functions import NUMBER, address, link, prologue
from verifier_generate import EXIT, I, Maker, call, ldmap, mov, movr
from verifier_oracle import MAPS, Sample

TIMED = [NUMBER[name] for name in ("timed", "timedh", "timedl", "timed1", "mixed")]
KPTRS = [NUMBER[name] for name in ("kernel", "kernelh", "kernelp", "kernelph", "kernel1", "mixed", "own", "ownh", "many")]
LOCKED = [NUMBER[name] for name in ("locked", "strongly")]
REFUSED = [NUMBER[name] for name in ("traces", "cgroups", "cgstore", "reuse", "devs", "cpus", "xsks", "sockh")]
INIT, SET_CALLBACK, START, CANCEL, XCHG = 169, 170, 171, 172, 194


def lookup(m: Maker, number: int, register: int, checked: float = 0.93) -> None:
    """register = a value of the map, checked against null or not."""
    r = m.rng
    m.code += [I(0x62, 10, 0, -4, r.choice((0, 0, 1, 9))), *ldmap(1, number), movr(2, 10), I(0x07, 2, 0, 0, -4), call(1)]
    if r.random() < checked:
        m.code += [I(0x55, 0, 0, 2, 0), mov(0, 0), EXIT]
    m.code.append(movr(register, 0))


def direct(m: Maker, number: int, register: int) -> None:
    """register = the value of a map with one entry."""
    m.code += [I(0x18, register, 2, 0, number), I(0, 0, 0, 0, 0)]


def value(m: Maker, number: int, register: int) -> None:
    spec = MAPS[number][0]
    if spec.max_entries == 1 and m.rng.random() < 0.7:
        direct(m, number, register)
    else:
        lookup(m, number, register)


def field(number: int, *kinds: str) -> int:
    """Offset of a field of the map's value, 0 if it has none."""
    return next((item.offset for item in getattr(MAPS[number][0], "fields", ()) if item.kind in kinds), 0)


def near(m: Maker, offset: int) -> int:
    """That offset, mostly."""
    return offset if m.rng.random() < 0.95 else offset + m.rng.choice((-8, 8, 4, 1, 16))


def pointer(m: Maker, register: int, base: int, offset: int) -> None:
    """register = base + offset, seldom with a variable part."""
    offset = near(m, offset)
    m.code += [movr(register, base), *([I(0x07, register, 0, 0, offset)] if offset else [])]
    if m.rng.random() < 0.02:
        m.code += [I(0x61, 5, 6, 0), I(0x57, 5, 0, 0, 8), I(0x0F, register, 5)]


def touch(m: Maker, base: int, size: int) -> None:
    """A load or store of the value, wherever it hits."""
    r = m.rng
    off = r.randrange(0, size, r.choice((8, 8, 8, 4, 1)))
    m.code.append(r.choice((I(0x79, 1, base, off), I(0x61, 1, base, off), I(0x7A, base, 0, off, 0), I(0x7A, base, 0, off, 1),
                            I(0x62, base, 0, off, 0), I(0x71, 1, base, off))))  # fmt: skip


def timers(rng: random.Random) -> Sample:
    """init, set_callback, start, cancel: right maps and places, and nearly right ones."""
    m = Maker(rng)
    prologue(m, 2)
    number = rng.choice([*TIMED * 4, *[NUMBER["timedl"]] * 6, 0, NUMBER["plain"], NUMBER["kernel"], NUMBER["working"]])
    at = field(number, "timer")
    value(m, number, 7)
    for _ in range(rng.randrange(1, 4)):
        kind = rng.choice((INIT, INIT, SET_CALLBACK, SET_CALLBACK, START, CANCEL))
        pointer(m, 1, 7, at)
        if kind == INIT:
            other = number if rng.random() < 0.95 else rng.choice(TIMED)
            m.code += [*ldmap(2, other), mov(3, rng.choice((0, 1, 1, 7, 2)))]
        elif kind == SET_CALLBACK:
            m.code += address(2, rng.choice((1, 1, 1, 2)))
        elif kind == START:
            m.code += [mov(2, 1000), mov(3, rng.choice((0, 1, 3)))]
        m.code.append(call(kind))
    if rng.random() < 0.3:
        touch(m, 7, MAPS[number][0].value_size)
    bodies = [("main", m.end())]
    for name in (("s_args0" if rng.random() < 0.95 else "g_args0"), "s_args25"):
        body = Maker(rng)
        _timer_body(body, number, at)
        bodies.append((name, body.code))
    return link(bodies)


def _timer_body(m: Maker, number: int, at: int) -> None:
    r = m.rng
    for _ in range(r.randrange(0, 3)):
        m.code += r.choice((
            [I(0x61, 6, 2, 0)], [I(0x79, 6, 3, 0)], [I(0x79, 6, 3, at)] if r.random() < 0.2 else [], [I(0x7A, 3, 0, at + 16, 1)], [I(0x7A, 10, 0, -8, 1)], [I(0x69, 6, 2, 2)],
            [movr(6, 3), movr(1, 3), I(0x07, 1, 0, 0, at), mov(2, 0), mov(3, 0), call(START), movr(3, 6), mov(2, 0)],
            [movr(6, 1), movr(7, 2), call(3), movr(1, 6), movr(2, 7)],
            [movr(6, 3), movr(2, 1), movr(1, 3), I(0x07, 1, 0, 0, at), mov(3, 0), call(INIT), movr(3, 6), mov(2, 0)],
            [movr(6, 3), movr(1, 3), I(0x07, 1, 0, 0, at), I(0x18, 2, 4, 0, (1 << 24) + 2), I(0), call(SET_CALLBACK), movr(3, 6), mov(2, 0), mov(1, 0)],
        ))
    kind = r.random()
    m.code += [mov(0, 0)] if kind < 0.8 else [mov(0, r.choice((1, -1)))] if kind < 0.9 else [movr(0, r.choice((1, 3)))] if kind < 0.95 else []
    m.code.append(EXIT)


def inner_timers(rng: random.Random) -> Sample:
    """Timers in maps of maps: a timer belongs to the map it was looked up in."""
    m = Maker(rng)
    prologue(m, 2)
    outer = NUMBER["timers"] if rng.random() < 0.85 else NUMBER["kptrs"]
    lookup(m, outer, 7)
    if rng.random() < 0.4:
        lookup(m, outer, 9)
    else:
        m.code.append(movr(9, 7))
    m.code += [movr(1, 7), movr(2, 10), I(0x07, 2, 0, 0, -4), call(1), I(0x55, 0, 0, 2, 0), mov(0, 0), EXIT, movr(8, 0)]
    pointer(m, 1, 8, 8)
    if rng.random() < 0.6:
        m.code += [movr(2, rng.choice((7, 7, 9))) if rng.random() < 0.8 else movr(2, 6), mov(3, 1), call(INIT)]
    else:
        m.code += [*address(2, 1), call(SET_CALLBACK)]
    if rng.random() < 0.5:
        touch(m, 8, 32)
    body = Maker(rng)
    _timer_body(body, outer, 8)
    return link([("main", m.end()), ("s_args0", body.code)])


def _object(m: Maker, register: int) -> None:
    """register = a pointer to an object of some sort, for stores and exchanges."""
    r = m.rng
    kind = r.random()
    if kind < 0.3:
        m.code.append(mov(register, 0))
    elif kind < 0.5:
        m.code += [call(158), movr(register, 0)]
    elif kind < 0.75:
        number = r.choice(KPTRS)
        value(m, number, 9)
        offsets = [item.offset for item in getattr(MAPS[number][0], "fields", ())] or [0]
        m.code.append(I(0x79, register, 9, r.choice(offsets)))
        if r.random() < 0.7:
            m.code += [I(0x55, register, 0, 2, 0), mov(0, 0), EXIT]
    elif kind < 0.85:
        m.code += [mov(register, r.choice((0, 5)))]
    else:
        m.code.append(movr(register, r.choice((6, 7, 10))))


def kptrs(rng: random.Random) -> Sample:
    """Kernel pointers: loads, stores, exchanges, with null, with what was loaded, at wrong places and in wrong sizes."""
    m = Maker(rng)
    prologue(m, 2)
    number = rng.choice(KPTRS)
    offsets = [(item.offset, item.kind) for item in MAPS[number][0].fields if item.target]  # type: ignore[attr-defined]
    value(m, number, 7)
    for _ in range(rng.randrange(1, 4)):
        at, what = rng.choice(offsets)
        kind = rng.random()
        weak = what == "kptr_untrusted"
        if kind < 0.25:
            _load(m, at, "own" in MAPS[number][0].name)
        elif kind < (0.75 if weak else 0.3):
            _store(m, at if rng.random() < 0.9 else near(m, at))
        elif kind < (0.8 if weak else 0.92):
            _exchange(m, at, "own" in MAPS[number][0].name)
        elif kind < 0.97:
            touch(m, 7, MAPS[number][0].value_size)
        else:
            _indirect(m, number)
    return Sample.of(m.end(), ((0, "main"),) if rng.random() < 0.5 else ())


def _load(m: Maker, at: int, own: bool) -> None:
    r = m.rng
    m.code.append(I(r.choice((0x79,) * 8 + (0x61, 0x81)), 8, 7, near(m, at)))
    kind = r.random()
    if kind < 0.9:
        m.code += [I(0x55, 8, 0, 2, 0), mov(0, 0), EXIT]
    if kind < 0.3:
        reads = (I(0x79, 1, 8, 0), I(0x61, 1, 8, 8), I(0x79, 1, 8, 16), I(0x79, 1, 8, 24), I(0x61, 1, 8, 4), I(0x79, 1, 8, 40), I(0x79, 1, 8, 48)) if own else ()
        m.code.append(r.choice((*reads, I(0x7A, 8, 0, 0, 1), I(0x07, 8, 0, 0, 8), I(0x7B, 10, 8, -24), movr(1, 8))))
    elif kind < 0.45:
        m.code += [movr(1, 8), mov(2, 0), call(r.choice((153, 154)))]
        if r.random() < 0.5:
            m.code.append(r.choice((I(0x79, 1, 0, 0), I(0x7A, 0, 0, 8, 1), I(0x79, 1, 0, 16), I(0x79, 1, 0, 32), I(0x62, 0, 0, 4, 3))))
    elif kind > 0.9:
        m.code.append(I(0x1D, 8, 7, 0))


def _store(m: Maker, at: int) -> None:
    r = m.rng
    if r.random() < 0.5:
        m.code.append(I(0x7A, 7, 0, at, 0 if r.random() < 0.9 else 1))
        return
    _object(m, 8)
    if r.random() < 0.1:
        m.code.append(I(0x07, 8, 0, 0, r.choice((8, -8))))
    m.code.append(I(r.choice((0x7B,) * 9 + (0x63, 0xDB)), 7, 8, at))


def _exchange(m: Maker, at: int, own: bool) -> None:
    r = m.rng
    if r.random() < 0.3:
        _object(m, 8)
        pointer(m, 1, 7, at)
        m.code.append(movr(2, 8))
    else:
        pointer(m, 1, 7, at)
        m.code.append(mov(2, 0))
    m.code.append(call(XCHG))
    kind = r.random()
    if kind < 0.05:
        return
    m.code.append(movr(8, 0))
    if kind < 0.95:
        m.code += [I(0x15, 8, 0, 0, 0)]
        hole = len(m.code) - 1
        if kind > 0.6:
            uses = (I(0x79, 1, 8, 0), I(0x7A, 8, 0, 0, 1), I(0x61, 1, 8, 8), I(0x62, 8, 0, 8, 1), I(0x79, 1, 8, 16), I(0x79, 1, 8, 40)) if own else ()
            m.code.append(r.choice((*uses, I(0x7B, 10, 8, -24), movr(9, 8))))
        pointer(m, 1, 7, at)
        m.code += [movr(2, 8), call(XCHG)]
        m.code[hole] = m.code[hole]._replace(off=len(m.code) - hole - 1)
        if r.random() < 0.93:
            m.code += [I(0x15, 0, 0, 0, 0)]
            hole = len(m.code) - 1
            pointer(m, 1, 7, at)
            m.code += [movr(2, r.choice((0, 8))), call(XCHG)]
            if r.random() < 0.9:
                m.code += [I(0x55, 0, 0, 1, 0), I(0x05, 0, 0, 1), I(0x05, 0, 0, -1)]
            m.code[hole] = m.code[hole]._replace(off=len(m.code) - hole - 1)


def _indirect(m: Maker, number: int) -> None:
    """Helpers that read or write the value itself."""
    r = m.rng
    m.code += r.choice((
        [I(0x62, 10, 0, -4, 0), *ldmap(1, number), movr(2, 10), I(0x07, 2, 0, 0, -4), movr(3, 7), mov(4, 0), call(2)],
        [movr(1, 6), mov(2, 0), movr(3, 7), mov(4, r.choice((4, 8, 16, 24))), call(26)],
        [movr(1, 6), mov(2, 0), movr(3, 7), I(0x07, 3, 0, 0, 24), mov(4, 8), call(26)],
    ))


def locks(rng: random.Random) -> Sample:
    """Maps with locks, which no socket filter may name; the helpers with other values."""
    m = Maker(rng)
    prologue(m, 2)
    number = rng.choice([*LOCKED, NUMBER["timed"], NUMBER["plain"], 0])
    value(m, number, 7)
    pointer(m, 1, 7, 8)
    m.code.append(call(93))
    if rng.random() < 0.5:
        m.code.append(I(0x7A, 7, 0, 0, 1))
    pointer(m, 1, 7, 8)
    m.code.append(call(94))
    return Sample.of(m.end())


def constants(rng: random.Random) -> Sample:
    """Frozen arrays: what is loaded is known, so branches on it are decided and code beyond is dead."""
    m = Maker(rng)
    prologue(m, 2)
    number = NUMBER[rng.choice(("consts", "consts", "consts", "const4", "zeros"))]
    size = MAPS[number][0].value_size
    value(m, number, 7)
    m.scalars = {8}
    for _ in range(rng.randrange(1, 5)):
        width, code = rng.choice(((8, 0x79), (4, 0x61), (2, 0x69), (1, 0x71), (1, 0x91), (2, 0x89), (4, 0x81)))
        off = rng.randrange(0, size, width if rng.random() < 0.9 else 1)
        m.code.append(I(code, 8, 7, off))
        kind = rng.random()
        if kind < 0.5:
            m.code.append(I(rng.choice((0x15, 0x55, 0x25, 0x65, 0x45, 0x16)), 8, 0, 0, rng.choice((0, 7, 3, -2, -5, 0xFFFE, 100))))
            hole = len(m.code) - 1
            m.code += rng.choice(([I(0x79, 1, 2, 0)], [movr(1, 8)], [*ldmap(1, 1), I(0x7A, 1, 0, 0, 0)], [call(9999)], [I(0x7A, 7, 0, 0, 1)]))
            m.code[hole] = m.code[hole]._replace(off=len(m.code) - hole - 1)
        elif kind < 0.7:
            m.code += [I(0x57, 8, 0, 0, rng.choice((7, 63))), I(0x18, 1, 2, 0, 2), I(0), I(0x0F, 1, 8), I(0x71, 2, 1)]
        elif kind < 0.8:
            m.code += [I(0x0F, 7, 8), I(0x71, 1, 7)]
    if rng.random() < 0.3:
        m.code += [movr(1, 10), I(0x07, 1, 0, 0, -16), mov(2, 8), I(0x18, 3, 2, 0, NUMBER["consts"]), I(0, 0, 0, 0, rng.choice((18, 20, 22, 0))), movr(4, 10)]
        m.code += [I(0x07, 4, 0, 0, -8), mov(5, 8), call(165)]
    return Sample.of(m.end())


def kinds(rng: random.Random) -> Sample:
    """Maps of every kind with every helper that takes a map."""
    m = Maker(rng)
    prologue(m, 4)
    number = rng.choice(REFUSED) if rng.random() < 0.6 else rng.randrange(len(MAPS))
    helper = rng.choice((1, 1, 1, 2, 3, 12, 25, 27, 28, 55, 81, 87, 88, 89, 130, 131, 134, 164, 195, 156, 157, 209, 51, 53, 65))
    m.code += [I(0x62, 10, 0, -4, 0)]
    first = 2 if helper in (12, 25) else 1
    if first == 2:
        m.code.append(movr(1, 6))
    m.code += ldmap(first, number)
    for register in range(first + 1, 6):
        kind = rng.random()
        m.code += [movr(register, 10), I(0x07, register, 0, 0, -rng.choice((4, 8, 16, 32)))] if kind < 0.6 else [mov(register, rng.choice((0, 0, 1, 8)))]
    m.code.append(call(helper))
    if rng.random() < 0.7:
        m.code += [I(0x15, 0, 0, 1, 0), rng.choice((I(0x71, 1, 0), I(0x79, 1, 0), I(0x61, 1, 0, 4)))]
    return Sample.of(m.end())


FEATURES: dict[str, Callable[[random.Random], Sample]] = {
    "timers": timers, "inner_timers": inner_timers, "kptrs": kptrs, "locks": locks, "constants": constants, "kinds": kinds,
}  # fmt: skip
