"""Nearly right programs that call kernel functions: iterators, dynptrs, regions, and anything with anything."""

from __future__ import annotations

import random
from collections.abc import Callable

from verifier_generate import Code, I, Maker, call, ldmap, mov, movr
from verifier_oracle import KFUNCS

from pktbpf.abi import kfuncs

NUMBER = {name: number for number, name in enumerate(KFUNCS)}


def kcall(name: str) -> I:
    """A call by name."""
    return I(0x85, 0, 2, 0, NUMBER[name])


def place(register: int, offset: int) -> Code:
    """register = fp + offset"""
    return [movr(register, 10), I(0x07, register, 0, 0, offset)]


def _new(m: Maker, kind: str, at: int) -> None:
    r = m.rng
    m.code += place(1, at)
    if kind == "num":
        m.code += [mov(2, r.choice((0, 0, 1, 100, -5)))] if r.random() < 0.7 else [I(0x61, 2, 6, 0)]
        m.code.append(mov(3, r.choice((3, 10, 1 << 20, 0))))
    elif kind == "bits":
        m.code += [*place(2, -64), mov(3, r.choice((1, 2, 0, 600)))]
    else:
        m.code += [mov(2, 0), mov(3, r.choice((0, 1)))]
    m.code.append(kcall(f"bpf_iter_{kind}_new"))


def iterate(rng: random.Random) -> Code:
    """One loop over an iterator, sometimes nested, broken out of, or used after its end."""
    m = Maker(rng)
    m.code.append(movr(6, 1))
    for n in (7, 8):
        m.scalar(n)
    kind = rng.choice(("num", "num", "num", "bits", "task"))
    _loop(m, kind, -8 * rng.choice((1, 1, 2, 3, 4) if kind == "num" or rng.random() < 0.1 else (3, 4)), 0)
    if rng.random() < 0.4:
        m.code += [I(0x18, 1, 2, 0, 2), I(0), movr(2, rng.choice((7, 8)))]
        m.code += [I(0x57, 2, 0, 0, rng.choice((63, 31)))] if rng.random() < 0.6 else []
        m.code += [I(0x0F, 1, 2), I(0x71, 3, 1)]
    return m.end()


def _loop(m: Maker, kind: str, at: int, depth: int) -> None:
    r = m.rng
    if kind == "task" and r.random() < 0.8:
        m.code.append(kcall("bpf_rcu_read_lock"))
    _new(m, kind, at)
    start = len(m.code)
    m.code += [*place(1, at if r.random() < 0.97 else at - 8), kcall(f"bpf_iter_{kind}_next")]
    check = len(m.code)
    m.code.append(I(0x15, 0, 0, 0, 0))
    for _ in range(r.randrange(1, 4)):
        _body(m, kind, at, depth)
    m.code.append(I(0x05, 0, 0, start - len(m.code) - 1))
    m.code[check] = I(0x15, 0, 0, len(m.code) - check - 1, 0)
    if r.random() < 0.95:
        m.code += [*place(1, at), kcall(f"bpf_iter_{kind}_destroy")]
    if kind == "task" and r.random() < 0.9:
        m.code.append(kcall("bpf_rcu_read_unlock"))
    if r.random() < 0.1:
        m.code.append(I(0x61, 1, 0, 0))


def _body(m: Maker, kind: str, at: int, depth: int) -> None:
    r = m.rng
    what = r.random()
    if what < 0.3 and kind != "task":
        m.code += [I(0x61, 1, 0, r.choice((0, 0, 0, 4)))]
        m.code.append(r.choice((I(0x0F, 7, 1), movr(7, 1), I(0x2F, 8, 1))))
    elif what < 0.5:
        m.code.append(r.choice((I(0x07, 7, 0, 0, 1), I(0x07, 8, 0, 0, 2), mov(7, 5), I(0x57, 8, 0, 0, 7), movr(8, 7))))
    elif what < 0.6:
        m.branch(lambda: m.code.append(I(0x07, r.choice((7, 8)), 0, 0, 1)))
    elif what < 0.7:
        m.code.append(I(0x7B, 10, r.choice((7, 8)), -40))
    elif what < 0.75:
        m.code += [I(0x7A, 10, 0, -48, 0), *ldmap(1, 0), *place(2, -48), call(1)]
    elif what < 0.8:
        m.code += [I(0x18, 1, 2, 0, 2), I(0), movr(2, 7), I(0x57, 2, 0, 0, r.choice((63, 64)))]
        m.code += [I(0x0F, 1, 2), I(0x71, 3, 1)]
    elif what < 0.85 and depth < 1:
        _loop(m, r.choice(("num", "bits")), -72 - 16 * depth, depth + 1)
    elif what < 0.88:
        m.code += [*place(1, at), kcall(f"bpf_iter_{kind}_destroy"), mov(0, 0), I(0x95)]
    elif what < 0.91:
        m.code += [I(0x79, 1, 10, at)] if r.random() < 0.5 else [I(0x7A, 10, 0, at, 0)]


def packets(rng: random.Random) -> Code:
    """Dynptrs over the packet, memory and ring buffers: slices, clones, adjusting, copies."""
    m = Maker(rng)
    m.code.append(movr(6, 1))
    for off in range(24, 72, 8):
        if rng.random() < 0.8:
            m.code.append(I(0x7A, 10, 0, -off, 7))
    kind = rng.choice(("skb", "skb", "mem", "ring"))
    if kind == "skb":
        m.code += [movr(1, 6), mov(2, rng.choice((0, 0, 1))), *place(3, -16), kcall("bpf_dynptr_from_skb")]
    elif kind == "mem":
        m.code += [I(0x18, 1, 2, 0, 2), I(0), mov(2, 64), mov(3, 0), *place(4, -16), call(197)]
    else:
        m.code += [*ldmap(1, 6), mov(2, 16), mov(3, 0), *place(4, -16), call(198)]
    for _ in range(rng.randrange(1, 4)):
        _dynptr_use(m)
    if kind == "ring" and rng.random() < 0.9:
        m.code += [*place(1, -16), mov(2, 0), call(rng.choice((199, 200)))]
    if rng.random() < 0.2:
        m.code.append(I(0x71, 1, 8))
    return m.end()


def _dynptr_use(m: Maker) -> None:
    r = m.rng
    what = r.random()
    first = place(1, r.choice((-16,) * 12 + (-32, -8)))
    if what < 0.35:
        m.code += [*first, mov(2, r.choice((0, 14)))]
        m.code += place(3, r.choice((-32, -48, -64))) if r.random() < 0.6 else [mov(3, 0)]
        m.code += [mov(4, r.choice((8, 8, 8, 16, 0, 100)))] if r.random() < 0.95 else [I(0x61, 4, 6, 0)]
        m.code.append(kcall("bpf_dynptr_slice" if r.random() < 0.95 else "bpf_dynptr_slice_rdwr"))
        m.code += [I(0x15, 0, 0, 2, 0)] if r.random() < 0.9 else []
        m.code += [I(0x71, 1, 0, r.choice((0, 7, 7, 8)))] if r.random() < 0.9 else [movr(8, 0), I(0x72, 0, 0, 0, 1)]
    elif what < 0.45:
        m.code += [*first, *place(2, r.choice((-80, -96, -112))), kcall("bpf_dynptr_clone")]
    elif what < 0.55:
        m.code += [*first, mov(2, 1), mov(3, 8), kcall("bpf_dynptr_adjust")]
    elif what < 0.7:
        m.code += [*first, kcall(r.choice(("bpf_dynptr_is_null", "bpf_dynptr_is_rdonly", "bpf_dynptr_size")))]
    elif what < 0.8:
        m.code += [*first, mov(2, 0), *place(3, -16), mov(4, 0), mov(5, 4), kcall("bpf_dynptr_copy")]
    elif what < 0.9:
        m.code += [*place(1, -64), mov(2, 8), *place(3, -16), mov(4, 0), mov(5, 0), call(201)]
    else:
        m.code += [*first, mov(2, 0), *place(3, -64), mov(4, 8), mov(5, 0), call(202)]


def regions(rng: random.Random) -> Code:
    """RCU, preemption and interrupts: mostly balanced, some nested wrongly or forgotten, around packet loads."""
    m = Maker(rng)
    m.code.append(movr(6, 1))
    m.scalar(7)
    slots = rng.sample((-8, -16, -24), 3)
    opened: list[Code] = []
    for _ in range(rng.randrange(1, 5)):
        what = rng.random()
        if what < 0.3 and [kcall("bpf_rcu_read_unlock")] not in opened:
            _open(m, opened, [kcall("bpf_rcu_read_lock")], [kcall("bpf_rcu_read_unlock")])
        elif what < 0.5:
            _open(m, opened, [kcall("bpf_preempt_disable")], [kcall("bpf_preempt_enable")])
        elif what < 0.7 and slots:
            at = place(1, slots.pop())
            _open(m, opened, [*at, kcall("bpf_local_irq_save")], [*at, kcall("bpf_local_irq_restore")])
        elif what < 0.75:
            m.code.append(I(0x20, 0, 0, 0, 0))
        else:
            m.branch(lambda: m.code.append(I(0x07, 7, 0, 0, 1)))
        if opened and rng.random() < 0.5:
            m.code += opened.pop()
    if opened and rng.random() < 0.1:
        rng.shuffle(opened)
    for close in reversed(opened if rng.random() < 0.9 else opened[1:]):
        m.code += close
    return m.end()


def _open(m: Maker, opened: list[Code], begin: Code, close: Code) -> None:
    m.code += begin
    opened.append(close)


def anykfunc(rng: random.Random) -> Code:
    """Any kernel function with arguments that may fit."""
    m = Maker(rng)
    m.code.append(movr(6, 1))
    for off in range(8, 72, 8):
        if rng.random() < 0.6:
            m.code.append(I(0x7A, 10, 0, -off, 7))
    for _ in range(rng.randrange(1, 3)):
        row = rng.choice(kfuncs.ROWS)
        while rng.random() < 0.8 and (row.has("sleeps") or row.name.startswith(("bpf_res", "bpf_wq", "bpf_xdp", "__"))):
            row = rng.choice(kfuncs.ROWS)
        name = row.name if rng.random() < 0.95 else rng.choice(("bpf_task_acquire", "bpf_obj_new_impl"))
        for number, param in enumerate(row.params, 1):
            _argument(m, number, param.kind)
        m.code.append(kcall(name))
    return m.end()


def _argument(m: Maker, number: int, kind: str) -> None:
    r = m.rng
    if kind == "const":
        m.code.append(mov(number, 0) if r.random() < 0.8 else I(0x61, number, 6, 0))
    elif kind in ("scalar", "sz", "szk") and r.random() < 0.85:
        m.code.append(mov(number, r.choice((0, 1, 8, 16))))
    elif kind == "ctx" and r.random() < 0.85:
        m.code.append(movr(number, 6))
    elif kind == "map" and r.random() < 0.8:
        m.code += ldmap(number, r.choice((0, 1, 6)))
    elif kind in ("lock", "wq", "str") and r.random() < 0.7:
        m.code += [I(0x18, number, 2, 0, r.choice((2, 12))), I(0)]
    elif r.random() < 0.7:
        m.code += place(number, -8 * r.choice((1, 2, 3, 4, 6)))
    else:
        m.code += r.choice(([mov(number, 0)], [movr(number, 6)], ldmap(number, 0), [I(0x79, number, 6, 168)]))


FEATURES: dict[str, Callable[[random.Random], Code]] = {
    "iterate": iterate, "packets": packets, "regions": regions, "anykfunc": anykfunc,
}  # fmt: skip
