# ruff: noqa: E501
"""A function of nested statements of all kinds: what verifier_whole puts together to programs.

Body knows roughly which registers hold numbers and which hold pointers, so that most statements fit where they stand.
Statements that call other functions of the program ask its `callee` for one.
"""

from __future__ import annotations

import random
from typing import Protocol

from verifier_features import STORE
from verifier_functions import address, invoke
from verifier_generate import EXIT, JMP, Code, I, Maker, call, ldmap, mov, movr
from verifier_kfuncs import kcall, place

from pktbpf.isa.extended import Insn

WIDTH = {8: 0x18, 4: 0x00, 2: 0x08, 1: 0x10}
ATOMIC = (0x00, 0x01, 0x40, 0x41, 0x50, 0x51, 0xA0, 0xA1, 0xE1, 0xF1, 0x100, 0x110)
# Statements by how often they are chosen, where those that lead to others may stand, and deeper inside.
PLAIN = {"scalar": 8, "arithmetic": 22, "condition": 14, "slot": 14, "narrow": 6, "copy": 8, "use": 7, "access": 8,
         "value": 4, "address": 3, "atomic": 4, "leave": 2, "null": 2}  # fmt: skip
NESTING = ("condition", "value", "counted", "may_goto", "iterate", "back", "function", "region", "record", "dynptr", "null")
CALLBACKS = {"loop": 181, "each": 164, "drain": 209}


class Callees(Protocol):
    """The program that a function belongs to."""

    budget: int

    @property
    def weights(self) -> dict[str, int]:
        """Statements and how often each is chosen."""

    def callee(self, kind: str) -> int | None:
        """Number of a function of that kind, None when there are enough."""


class Body(Maker):
    """One function under construction. kind: main, static, or the helper that calls it back. pointers: registers and
    what they point to. written: offsets of the stack that were stored to."""

    def __init__(self, rng: random.Random, program: Callees, kind: str, depth: int = 0):
        super().__init__(rng)
        self.program = program
        self.kind = kind
        self.depth = depth
        self.pointers: dict[int, str] = {}
        self.written: set[int] = set()
        self.below = -160

    # ---- what registers hold

    def holds(self, register: int, what: str = "") -> None:
        """The register has a number, or a pointer to `what`."""
        self.scalars.discard(register)
        self.pointers.pop(register, None)
        if what:
            self.pointers[register] = what
        else:
            self.scalars.add(register)

    def gone(self, *registers: int) -> None:
        """After a call, or where more is not known."""
        for register in registers or range(6):
            self.scalars.discard(register)
            self.pointers.pop(register, None)

    def free(self) -> int:
        """A register without a pointer, mostly."""
        found = [n for n in (0, 1, 2, 3, 4, 5, 7, 8, 9) if n not in self.pointers]
        return self.rng.choice(found) if found and self.rng.random() < 0.95 else self.dst()

    def inside(self, count: int) -> None:
        """Statements that may not be reached; afterwards only what holds either way is known."""
        before = set(self.scalars), dict(self.pointers), set(self.written)
        self.run(count)
        self.join(*before)

    def join(self, scalars: set[int], pointers: dict[int, str], written: set[int]) -> None:
        """Another way comes here with that."""
        self.scalars &= scalars
        self.pointers = {n: what for n, what in self.pointers.items() if pointers.get(n) == what}
        self.written &= written

    def run(self, count: int) -> None:
        """That many statements, as long as the program may grow."""
        weights = self.program.weights
        if self.depth > 3:
            weights = {name: weight for name, weight in weights.items() if name not in NESTING}
        self.depth += 1
        for _ in range(count):
            if self.program.budget > 0:
                self.program.budget -= 1
                getattr(self, self.rng.choices(list(weights), list(weights.values()))[0])()
        self.depth -= 1

    # ---- numbers

    def scalar(self, register: int | None = None) -> int:
        n = self.free() if register is None else register
        r = self.rng
        if self.pointers.get(6) == "ctx" and r.random() < 0.6:
            self.code.append(r.choice((I(0x61, n, 6, 0), I(0x61, n, 6, 8), I(0x81, n, 6, 0), I(0x79, n, 6, 48), I(0x69, n, 6, 16), I(0x71, n, 6, 24))))
        elif r.random() < 0.3:
            self.code.append(call(7))
            self.gone()
            self.code.append(movr(n, 0))
        else:
            self.code.append(I(r.choice((0xB7, 0xB4)), n, 0, 0, self.imm()))
        self.holds(n)
        return n

    def arithmetic(self) -> None:
        r = self.rng
        if r.random() < 0.15:
            n = self.some()
            self.code += [I(0x67, n, 0, 0, 32), I(r.choice((0xC7, 0x77)), n, 0, 0, 32)]
        elif r.random() < 0.2:
            self.code.append(I(r.choice((0x3F, 0x37, 0x9F, 0x97, 0x3C, 0x94)), self.some(), 0, r.choice((0, 1)), 3))
            if self.code[-1].code & 8:
                self.code[-1] = self.code[-1]._replace(src=self.some(), imm=0)
        else:
            self.alu()

    def copy(self) -> None:
        """A linked copy, mostly with a constant apart."""
        n, m = self.some(), self.free()
        self.code.append(I(self.rng.choice((0xBF, 0xBF, 0xBF, 0xBC)), m, n))
        if self.rng.random() < 0.6:
            self.code.append(I(self.rng.choice((0x07, 0x07, 0x04, 0x17)), m, 0, 0, self.rng.choice((1, -1, 4, 100, 1 << 30))))
        self.holds(m)

    def null(self) -> None:
        """A number that was a pointer, changed."""
        n = self.rng.choice((7, 8, 9))
        self.code += [I(0x62, 10, 0, -4, 0), *ldmap(1, 0), *place(2, -4), call(1), movr(n, 0), I(0x55, n, 0, 1, 0)]
        self.gone()
        self.code.append(self.rng.choice((I(0x57, n, 0, 0, 7), I(0x47, n, 0, 0, 8), I(0x07, n, 0, 0, 1), I(0xBF, n, n, 16))))
        self.code += [I(0x15, n, 0, 1, 0), mov(n, 5)]
        self.holds(n)

    def compare(self) -> Insn:
        """A conditional jump without its distance; sometimes of a register with itself."""
        r = self.rng
        code = r.choice(JMP) | r.choice((5, 5, 6))
        if r.random() < 0.65:
            return I(code, self.some(), 0, 0, self.imm())
        n = self.some()
        return I(code | 8, n, n if r.random() < 0.1 else self.some())

    def condition(self) -> None:
        """if, sometimes with an else behind a near or a far jump"""
        r = self.rng
        jump, at = self.compare(), len(self.code)
        before = set(self.scalars), dict(self.pointers), set(self.written)
        self.code.append(jump)
        self.run(r.randrange(1, 3))
        if r.random() < 0.6:
            self.code[at] = jump._replace(off=len(self.code) - at - 1)
            self.join(*before)
            return
        over = len(self.code)
        self.code.append(I(0x05))
        self.code[at] = jump._replace(off=len(self.code) - at - 1)
        after = self.scalars, self.pointers, self.written
        self.scalars, self.pointers, self.written = set(before[0]), dict(before[1]), set(before[2])
        self.run(r.randrange(1, 3))
        distance = len(self.code) - over - 1
        self.code[over] = I(0x05, 0, 0, distance) if r.random() < 0.8 else I(0x06, 0, 0, 0, distance)
        self.join(*after)

    # ---- memory

    def slot(self) -> None:
        """A register to the stack, or back."""
        r = self.rng
        off, size = -8 * r.randrange(1, 6), r.choice((8, 8, 4, 2, 1))
        off += r.randrange(0, 8, size) if r.random() < 0.4 else 0
        if r.random() < 0.5 or not self.written:
            if r.random() < 0.25:
                self.code.append(I(STORE[size], 10, 0, off, self.imm()))
            elif r.random() < 0.3 and size == 8 and self.pointers:
                self.code.append(I(0x7B, 10, r.choice(sorted(self.pointers)), off))
            else:
                self.code.append(I(0x63 | WIDTH[size], 10, self.some(), off))
            self.written.add(off)
        else:
            n = self.free()
            self.code.append(I((0x61 if r.random() < 0.7 or size == 8 else 0x81) | WIDTH[size], n, 10, r.choice(sorted(self.written))))
            self.holds(n)

    def narrow(self) -> None:
        """Stored wide, loaded narrow."""
        r = self.rng
        off, size = -8 * r.randrange(1, 6), r.choice((8, 4, 4, 2, 1))
        self.code.append(r.choice((I(0x7B, 10, self.some(), off), I(0x63, 10, self.some(), off + r.choice((0, 4))), I(0x7A, 10, 0, off, self.imm()))))
        self.written.add(off)
        n = self.free()
        self.code.append(I((0x61 if size == 8 or r.random() < 0.6 else 0x81) | WIDTH[size], n, 10, off + (r.randrange(0, 8, size) if r.random() < 0.5 else 0)))
        self.holds(n)

    def value(self) -> None:
        """A pointer to a map value."""
        r = self.rng
        n = r.choice((7, 8, 9))
        if r.random() < 0.5:
            self.code += [I(0x18, n, 2, 0, 2), I(0, 0, 0, 0, r.choice((0, 0, 8)))]
        else:
            self.code += [I(0x62, 10, 0, -4, r.choice((0, 1))), *ldmap(1, r.choice((0, 0, 2, 3))), *place(2, -4), call(1), movr(n, 0)]
            self.gone()
            self.written.add(-4)
            self.code += [I(0x55, n, 0, 2, 0), mov(0, 0), EXIT] if r.random() < 0.95 else []
        self.holds(n, "value")

    def address(self) -> None:
        n = self.rng.choice((1, 2, 3, 7, 8, 9))
        self.code += place(n, -8 * self.rng.choice((1, 2, 3, 5)))
        self.holds(n, "stack")

    def access(self) -> None:
        """Through a pointer, at a known place or one that varies."""
        r = self.rng
        known = [n for n, what in self.pointers.items() if what != "ctx"]
        if not known:
            return self.value()
        base, size, off = r.choice(sorted(known)), r.choice((8, 4, 2, 1)), r.choice((0, 0, 0, 4, 8))
        if r.random() < 0.4:
            n, t = self.some(), self.free()
            if r.random() < 0.8:
                self.code.append(I(0x57, n, 0, 0, r.choice((3, 7, 15, 8))))
            self.code += [movr(t, base), I(r.choice((0x0F, 0x0F, 0x0F, 0x1F)), t, n)] if t != n else [I(0x0F, t, base)]
            self.gone(t)
            base = t
        if r.random() < 0.55:
            n = self.free()
            self.code.append(I((0x61 if r.random() < 0.75 or size == 8 else 0x81) | WIDTH[size], n, base, off))
            self.holds(n)
        else:
            self.code.append(I(STORE[size], base, 0, off, self.imm()) if r.random() < 0.5 else I(0x63 | WIDTH[size], base, self.some(), off))
        return None

    def use(self) -> None:
        """A number with a bound as an offset into a value of 64 bytes."""
        r = self.rng
        n = self.some()
        base = r.choice([x for x in (1, 2, 3, 4, 5) if x != n])
        if r.random() < 0.5:
            self.code.append(I(0x57, n, 0, 0, r.choice((63, 31, 7, 63, 63, 64))))
        else:
            self.code.append(I(r.choice((0x25, 0x25, 0x25, 0x35, 0x65, 0x26)), n, 0, 4, r.choice((63, 63, 56, 8, 64))))
        self.code += [I(0x18, base, 2, 0, 2), I(0), I(0x0F, base, n), I(0x71, base, base)]
        self.gone(base)

    def atomic(self) -> None:
        """Read-modify-write, load-acquire and store-release on the stack and on values, sometimes of pointers."""
        r = self.rng
        places = [(n, r.choice((0, 8))) for n, what in sorted(self.pointers.items()) if what != "ctx" or r.random() < 0.1]
        base, off = r.choice([(10, -8 * r.randrange(1, 6))] * 3 + places)
        what = r.choice(ATOMIC)
        code = r.choice((0xDB, 0xC3, 0xCB, 0xD3) if what >= 0x100 else (0xDB, 0xDB, 0xC3))
        if what == 0x100:
            n = self.free()
            self.code.append(I(code, n, base, off, what))
            self.holds(n)
            return
        n = r.choice(sorted(self.pointers)) if self.pointers and r.random() < 0.1 else self.some()
        if what == 0xF1 and 0 not in self.scalars:
            self.code.append(mov(0, self.imm()))
            self.holds(0)
        self.code.append(I(code, base, n, off, what))

    # ---- ways

    def leave(self) -> None:
        """if ... return"""
        jump, at = self.compare(), len(self.code)
        self.code.append(jump)
        self.finish()
        self.code[at] = jump._replace(off=len(self.code) - at - 1)

    def finish(self) -> None:
        """Return with what the caller expects, mostly."""
        r = self.rng
        if self.kind in CALLBACKS:
            self.code += [mov(0, r.choice((0, 0, 0, 1, 1)))] if r.random() < 0.85 or not self.scalars else [movr(0, self.some()), I(0x57, 0, 0, 0, 1)]
        else:
            self.code.append(mov(0, r.choice((0, 0, 1, 5))) if self.kind == "main" or r.random() < 0.5 or not self.scalars else movr(0, self.some()))
        self.code.append(EXIT)

    def counted(self) -> None:
        """A loop of a few rounds."""
        r = self.rng
        n = r.choice((7, 8, 9))
        self.code.append(mov(n, 0))
        self.gone(n)
        start = len(self.code)
        self.inside(r.randrange(0, 3))
        self.code += [I(0x07, n, 0, 0, 1), I(r.choice((0xA5, 0xA5, 0xC5, 0x55)), n, 0, start - len(self.code) - 2, r.choice((2, 3, 4, 6)))]
        self.holds(n)

    def may_goto(self) -> None:
        start = len(self.code)
        self.code.append(I(0xE5))
        self.inside(self.rng.randrange(1, 4))
        self.code.append(I(0x05, 0, 0, start - len(self.code) - 1))
        self.code[start] = I(0xE5, 0, 0, len(self.code) - start - 1)

    def iterate(self) -> None:
        """Open-coded iterators, nested and left early."""
        r = self.rng
        at = self.below
        self.below -= 8
        kind = r.choice(("num", "num", "num", "bits"))
        self.code += [I(0x7A, 10, 0, -40, 5), *place(1, at)]
        self.code += [mov(2, 0), mov(3, r.choice((3, 10, 1 << 20)))] if kind == "num" else [*place(2, -40), mov(3, 1)]
        self.code.append(kcall(f"bpf_iter_{kind}_new"))
        start = len(self.code)
        self.code += [*place(1, at), kcall(f"bpf_iter_{kind}_next"), I(0x15)]
        check = len(self.code) - 1
        self.gone()
        self.inside(r.randrange(1, 4))
        early = len(self.code) if r.random() < 0.2 else None
        if early is not None:
            self.code.append(self.compare())
        self.code.append(I(0x05, 0, 0, start - len(self.code) - 1))
        end = len(self.code)
        self.code[check] = I(0x15, 0, 0, end - check - 1)
        if early is not None:
            self.code[early] = self.code[early]._replace(off=end - early - 1)
        self.gone()
        self.code += [*place(1, at), kcall(f"bpf_iter_{kind}_destroy")] if r.random() < 0.97 else []

    # ---- other functions

    def back(self) -> None:
        """A helper with a callback whose context is in this frame, or handed on from the one before."""
        r = self.rng
        kind = r.choice(("loop", "loop", "loop", "each", "each", "drain"))
        number = self.program.callee(kind)
        if number is None:
            return
        for off in (-8, -16):
            if off not in self.written and r.random() < 0.9:
                self.code.append(I(0x7A, 10, 0, off, r.choice((0, 0, 1, 3))))
                self.written.add(off)
        if kind != "loop":
            self.code += ldmap(1, r.choice((0, 1, 3, 4, 7)) if kind == "each" else 15)
        elif r.random() < 0.75 or not self.scalars:
            self.code.append(mov(1, r.choice((0, 1, 2, 3, 10, 1 << 20))))
        else:
            self.code.append(movr(1, self.some()))
        context = movr(3, 9) if self.pointers.get(9) == "stack" and r.random() < 0.3 else None
        self.code += [*address(2, number), *([context] if context else place(3, -16)), mov(4, 0), call(CALLBACKS[kind])]
        self.gone()
        self._changed()

    def function(self) -> None:
        """A static function with a pointer to this frame."""
        r = self.rng
        number = self.program.callee("static")
        if number is None:
            return
        off = r.choice((-8, -16, -24))
        if off not in self.written and r.random() < 0.8:
            self.code.append(I(0x7A, 10, 0, off, self.imm()))
            self.written.add(off)
        self.code += [movr(1, 6) if self.pointers.get(6) == "ctx" and r.random() < 0.6 else movr(1, self.some()), *place(2, off)]
        self.code += [mov(3, self.imm()), invoke(number)]
        self.gone()
        self.holds(0)
        self._changed()

    def _changed(self) -> None:
        """Look at what another function may have written."""
        if self.rng.random() < 0.5:
            n = self.rng.choice((1, 2, 3, 7, 8))
            self.code.append(I(0x79, n, 10, self.rng.choice((-8, -16))))
            self.holds(n)

    def depart(self) -> None:
        """A tail call or a packet load, either of which may be the function's end."""
        r = self.rng
        tail: Code = [movr(1, 6), *ldmap(2, 5), mov(3, 0), call(12)]
        self.code += tail if r.random() < 0.5 else [I(r.choice((0x20, 0x28, 0x30)), 0, 0, 0, r.choice((0, 12)))]
        self.gone()
        self.holds(0)

    # ---- what has to be given back

    def record(self) -> None:
        """A record of a ring buffer around other statements."""
        r = self.rng
        n = r.choice((7, 8, 9))
        self.code += [*ldmap(1, 6), mov(2, r.choice((8, 16))), mov(3, 0), call(131), movr(n, 0), I(0x15, n)]
        at = len(self.code) - 1
        self.gone()
        self.holds(n, "value")
        self.inside(r.randrange(0, 3))
        self.code += [movr(1, n), mov(2, 0), call(r.choice((132, 133)))]
        self.gone(*range(6), n)
        self.code[at] = I(0x15, n, 0, len(self.code) - at - 1)

    def dynptr(self) -> None:
        """A dynptr of a ring buffer or the packet: read, sliced, given back."""
        r = self.rng
        at = self.below - 8
        self.below -= 16
        ring = r.random() < 0.5
        self.code += [*ldmap(1, 6), mov(2, 16), mov(3, 0), *place(4, at), call(198)] if ring else [movr(1, 6), mov(2, 0), *place(3, at), kcall("bpf_dynptr_from_skb")]
        self.gone()
        if r.random() < 0.5:
            self.code += [*place(1, -32), mov(2, 8), *place(3, at), mov(4, 0), mov(5, 0), call(201)]
        else:
            self.code += [*place(1, at), mov(2, 0), *([mov(3, 8), call(203)] if ring else [*place(3, -32), mov(4, 8), kcall("bpf_dynptr_slice")]), I(0x15, 0, 0, 1, 0), I(0x71, 0, 0, 7)]
        self.gone()
        self.inside(r.randrange(0, 2))
        self.code += [*place(1, at), mov(2, 0), call(r.choice((199, 200)))] if ring else []
        self.gone()

    def region(self) -> None:
        """RCU, preemption or interrupts off around other statements."""
        r = self.rng
        what = r.choice(("rcu", "preempt", "irq"))
        at = place(1, self.below)
        self.below -= 8 if what == "irq" else 0
        begin, end = {
            "rcu": ([kcall("bpf_rcu_read_lock")], [kcall("bpf_rcu_read_unlock")]),
            "preempt": ([kcall("bpf_preempt_disable")], [kcall("bpf_preempt_enable")]),
            "irq": ([*at, kcall("bpf_local_irq_save")], [*at, kcall("bpf_local_irq_restore")]),
        }[what]
        self.code += begin
        self.gone()
        self.inside(r.randrange(1, 3))
        self.code += end if r.random() < 0.97 else []
        self.gone()
