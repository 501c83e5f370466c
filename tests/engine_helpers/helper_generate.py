"""Random programs that call helpers, loops, subprograms and other programs, most of which the kernel accepts.

r6 holds the context, r7 what has been seen so far, r8 and r9 plain numbers; every answer of a helper is folded into r7,
which the program returns, so that any difference shows. `Generator(seed).case()` gives programs and their maps.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from helper_lab import Spec, assemble

from pktbpf.asm.builder import (
    ADD,
    AND,
    ARSH,
    DIV,
    DW,
    FETCH,
    JEQ,
    JGT,
    JLE,
    JLT,
    JNE,
    JSET,
    JSGT,
    JSLT,
    LSH,
    MOD,
    MUL,
    OR,
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
    RSH,
    SUB,
    XCHG,
    XOR,
    B,
    H,
    W,
    alu32_imm,
    alu32_reg,
    alu64_imm,
    alu64_reg,
    atomic_op,
    call,
    call_local,
    exit_,
    jmp32_imm,
    jmp_imm,
    label,
    ld_abs,
    ld_func,
    ld_ind,
    ld_map,
    ld_map_value,
    ldx_mem,
    mov64_imm,
    mov64_reg,
    st_mem,
    stx_mem,
)  # fmt: skip
from pktbpf.program import Program

Steps = list[Any]
FORMATS = (
    "%d", "%5d|%-6u|%06x", "%lld %llu %lx", "%s|%10s|%-10s|", "%c%c%5c%-3c|", "%pI4 %pi4", "%pI6 %pi6",
    "%px %20px|%-20px|", "%ps %pS|%8ps", "%pB", "%% %i %+d % d", "%X %08X %-8X|", "plain", "", "%pI4ab %d",
    "%pks %pus.", "%3d%%", "%s %d %s %lx", "%p", "%100d", "%-100s|", "%+5i|%-+5i|%0-5i|",
)  # fmt: skip
_TEXT = b"".join(f.encode() + b"\0" for f in FORMATS)
STARTS = [len(b"".join(f.encode() + b"\0" for f in FORMATS[:n])) for n in range(len(FORMATS))]
RO_SIZE = (len(_TEXT) + 7) // 8 * 8
NUMBERS_TEXT = ("0", "12", "-7", "  +3", "0x1f", "-0x", "077", "08", "9z", "\t99999999999999999999",
                "18446744073709551615",
                "9223372036854775808", "-9223372036854775808", "", "-", "abc", "0xfG")  # fmt: skip

SPECS: dict[str, Spec] = {
    "arr": Spec("ARRAY", 4, 8, 4),
    "arr2": Spec("ARRAY", 4, 24, 3),
    "hash": Spec("HASH", 4, 8, 4),
    "hash2": Spec("HASH", 8, 16, 8, flags=1),
    "pa": Spec("PERCPU_ARRAY", 4, 8, 3),
    "ph": Spec("PERCPU_HASH", 4, 8, 4),
    "lru": Spec("LRU_HASH", 4, 8, 64),
    "lruph": Spec("LRU_PERCPU_HASH", 4, 8, 64),
    "lpm": Spec("LPM_TRIE", 8, 8, 4, flags=1),
    "queue": Spec("QUEUE", 0, 8, 3),
    "stack": Spec("STACK", 0, 8, 3),
    "bloom": Spec("BLOOM_FILTER", 0, 8, 16),
    "in0": Spec("ARRAY", 4, 8, 2),
    "in1": Spec("ARRAY", 4, 8, 2, entries=[(bytes(4), b"inner 01")]),
    "outer": Spec("ARRAY_OF_MAPS", 4, 4, 3, inner="in0", slots={0: "in0", 1: "in1"}),
    "houter": Spec("HASH_OF_MAPS", 4, 4, 4, inner="in0", slots={0: "in1", 2: "in0"}),
    "ring": Spec("RINGBUF", 0, 0, 4096),
    "ro": Spec("ARRAY", 4, RO_SIZE, 1, flags=1 << 7, entries=[(bytes(4), _TEXT.ljust(RO_SIZE, b"\0"))], frozen=True),
    "jump": Spec("PROG_ARRAY", 4, 4, 4, programs={0: "other0", 2: "other1"}),
}
_NEEDS = {"outer": ("in0", "in1"), "houter": ("in0", "in1")}
_SIZES = {name: spec.value_size for name, spec in SPECS.items()}


class Generator:
    """A source of cases; the same seed gives the same ones."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self._labels = 0
        self._tails: Steps = []

    def case(self) -> tuple[dict[str, Program], dict[str, Spec]]:
        """Programs (main, other0, other1) and the maps they name."""
        bodies = {name: self._program(name, jumps=True) for name in ("main",)}
        if any("jump" in _maps(steps) for steps in bodies.values()):
            bodies |= {name: self._program(name, jumps=self.random.random() < 0.3) for name in ("other0", "other1")}
        used = {name for steps in bodies.values() for name in _maps(steps)}
        for name in tuple(used):
            used.update(_NEEDS.get(name, ()))
        specs = {name: spec for name, spec in SPECS.items() if name in used}
        return {name: assemble(steps, specs) for name, steps in bodies.items()}, specs

    def packets(self) -> list[bytes]:
        """A few payloads, some shorter than what programs read."""
        return [self.random.randbytes(self.random.choice((1, 5, 20, 64, 200))) for _ in range(3)]

    # --- programs

    def _program(self, name: str, jumps: bool) -> Steps:
        self._tails, chosen = [], self.random.randint(1, 7)
        start = [mov64_reg(R6, R1), mov64_imm(R7, self._number()), mov64_imm(R8, self._number()), mov64_imm(R9, 1)]
        body: Steps = []
        for _ in range(chosen):
            body += self._gadget(jumps and name != "other1")
        if self.random.random() < 0.3:
            body = [*body, alu64_imm(AND, R7, self.random.choice((0xFF, 3, 0xFFFF)))]
        return [*start, *body, mov64_reg(R0, R7), exit_(), *self._tails]

    def _gadget(self, jumps: bool) -> Steps:
        gadgets: list[Callable[[], Steps]] = [
            self.arithmetic, self.packet, self.packet_bytes, self.elements, self.elements, self.push_pop, self.nested,
            self.percpu, self.ring, self.ring_record, self.numbers, self.compare, self.text, self.trace, self.dynptr,
            self.loop, self.each, self.function, self.control_block, self.branch, self.bloom,
            self.ring_dynptr, self.plain,
        ]  # fmt: skip
        if jumps:
            gadgets += [self.tail_call, self.tail_call]
        return self.random.choice(gadgets)()

    def _number(self) -> int:
        return self.random.choice((0, 1, 2, 3, 4, 7, 255, -1, self.random.getrandbits(31), -(1 << 31)))

    def _label(self) -> str:
        self._labels += 1
        return f"l{self._labels}"

    def fold(self, source: int = R0) -> Steps:
        """What a register holds goes into r7."""
        return [alu64_imm(MUL, R7, 31), alu64_reg(XOR, R7, source)]

    def _word(self, offset: int, small: bool = True) -> Steps:
        """Eight bytes on the stack: a small number, or what r8 holds."""
        if small:
            return [st_mem(DW, R10, offset, self.random.randint(0, 5))]
        return [stx_mem(DW, R10, self.random.choice((R8, R7)), offset)]

    def _pointer(self, register: int, offset: int) -> Steps:
        return [mov64_reg(register, R10), alu64_imm(ADD, register, offset)]

    # --- gadgets

    def arithmetic(self) -> Steps:
        op = self.random.choice((ADD, SUB, MUL, DIV, MOD, OR, AND, XOR, LSH, RSH, ARSH))
        form = self.random.choice((alu64_reg, alu32_reg))
        if self.random.random() < 0.5:
            amount = self.random.randint(1, 31) if op in (LSH, RSH, ARSH) else self._number() or 1
            return [(alu64_imm if form is alu64_reg else alu32_imm)(op, R7, amount)]
        return [form(op, R7, self.random.choice((R8, R9))), alu64_imm(ADD, R8, self._number())]

    def branch(self) -> Steps:
        end = self._label()
        test = self.random.choice((JEQ, JNE, JGT, JSGT, JSET, JLE, JSLT))
        jump = self.random.choice((jmp_imm, jmp32_imm))(test, R7, self._number(), end)
        return [jump, *self._gadget(False), label(end)]

    def packet(self) -> Steps:
        size = self.random.choice((B, H, W))
        if self.random.random() < 0.5:
            return [ld_abs(size, self.random.choice((0, 1, 3, 14, 60, -0x100000))), *self.fold()]
        return [mov64_reg(R1, R7), alu64_imm(AND, R7, 15), ld_ind(size, R7, self.random.randint(0, 4)), *self.fold()]

    def packet_bytes(self) -> Steps:
        size = self.random.choice((1, 3, 8, 16))
        steps = [st_mem(DW, R10, -16, 0), st_mem(DW, R10, -8, 0), mov64_reg(R1, R6)]
        steps += [mov64_imm(R2, self.random.choice((0, 1, 4, 10, 60, -1, 70000))), *self._pointer(R3, -16)]
        steps.append(mov64_imm(R4, size))
        if self.random.random() < 0.5:
            steps.append(call("skb_load_bytes"))
        else:
            steps += [mov64_imm(R5, self.random.choice((0, 1, 1, 2))), call("skb_load_bytes_relative")]
        return [*steps, *self.fold(), ldx_mem(DW, R1, R10, -16), *self.fold(R1)]

    def elements(self) -> Steps:
        name = self.random.choice(("arr", "arr2", "hash", "hash2", "pa", "ph", "lru", "lruph", "lpm"))
        steps = self._word(-8)
        if name == "lpm":
            steps = [st_mem(W, R10, -8, self.random.choice((0, 8, 12, 16, 24, 32, 33)))]
            steps.append(st_mem(W, R10, -4, self.random.choice((0, 0x0A, 0x010A, 0x02010A))))
        kind = self.random.random()
        if kind < 0.45:
            end = self._label()
            steps += [ld_map(R1, name), *self._pointer(R2, -8), call("map_lookup_elem")]
            steps += [jmp_imm(JEQ, R0, 0, end), *self._touch(), label(end), alu64_imm(ADD, R7, 1)]
            return steps
        if kind < 0.85:
            for offset in range(-40, -15, 8):
                steps += self._word(offset, small=False)
            steps += [ld_map(R1, name), *self._pointer(R2, -8), *self._pointer(R3, -40)]
            steps += [mov64_imm(R4, self.random.choice((0, 0, 0, 1, 2, 3, 4, 8))), call("map_update_elem")]
        else:
            steps += [ld_map(R1, name), *self._pointer(R2, -8), call("map_delete_elem")]
        return [*steps, *self.fold()]

    def _touch(self, register: int = R0) -> Steps:
        """Read or change the value that a register points to."""
        choice = self.random.random()
        if choice < 0.4:
            return [ldx_mem(DW, R1, register, 0), *self.fold(R1)]
        if choice < 0.7:
            return [stx_mem(DW, register, R7, 0)]
        op = self.random.choice((ADD, OR, AND, XOR, ADD | FETCH, XCHG))
        return [mov64_reg(R1, R8), atomic_op(DW, op, register, R1, 0), *self.fold(R1)]

    def push_pop(self) -> Steps:
        name = self.random.choice(("queue", "stack"))
        steps = [*self._word(-8, small=False), ld_map(R1, name), *self._pointer(R2, -8)]
        what = self.random.choice(("push", "push", "pop", "peek"))
        if what == "push":
            steps.append(mov64_imm(R3, self.random.choice((0, 0, 2, 1, 4))))
        steps += [call(f"map_{what}_elem"), *self.fold()]
        return [*steps, ldx_mem(DW, R1, R10, -8), *self.fold(R1)]

    def bloom(self) -> Steps:
        what = self.random.choice(("push", "peek"))
        flags = [mov64_imm(R3, self.random.choice((0, 0, 1)))] if what == "push" else []
        steps = [*self._word(-8), ld_map(R1, "bloom"), *self._pointer(R2, -8), *flags]
        return [*steps, call(f"map_{what}_elem"), *self.fold()]

    def nested(self) -> Steps:
        end, name = self._label(), self.random.choice(("outer", "houter"))
        steps = [*self._word(-8), ld_map(R1, name), *self._pointer(R2, -8), call("map_lookup_elem")]
        steps += [jmp_imm(JEQ, R0, 0, end), *self._word(-16), mov64_reg(R1, R0), *self._pointer(R2, -16)]
        if self.random.random() < 0.3:
            steps += [*self._pointer(R3, -16), mov64_imm(R4, 0), call("map_update_elem"), *self.fold(), label(end)]
            return steps
        steps += [call("map_lookup_elem"), jmp_imm(JEQ, R0, 0, end), *self._touch(), label(end)]
        return steps

    def percpu(self) -> Steps:
        end, name = self._label(), self.random.choice(("pa", "ph", "lruph"))
        steps = [*self._word(-8), ld_map(R1, name), *self._pointer(R2, -8)]
        steps += [mov64_imm(R3, self.random.choice((0, 0, 1, 99))), call("map_lookup_percpu_elem")]
        return [*steps, jmp_imm(JEQ, R0, 0, end), *self._touch(), label(end)]

    def ring(self) -> Steps:
        if self.random.random() < 0.3:
            what = mov64_imm(R2, self.random.randint(0, 4))
            return [ld_map(R1, "ring"), what, call("ringbuf_query"), *self.fold()]
        size = self.random.choice((0, 1, 8, 13, 24))
        steps = [*self._word(-24, False), *self._word(-16), *self._word(-8)]
        steps += [ld_map(R1, "ring"), *self._pointer(R2, -24)]
        steps += [mov64_imm(R3, size), mov64_imm(R4, self.random.choice((0, 1, 2, 3, 4))), call("ringbuf_output")]
        return [*steps, *self.fold()]

    def ring_record(self) -> Steps:
        end, size = self._label(), self.random.choice((8, 24, 400, 1500))
        steps = [ld_map(R1, "ring"), mov64_imm(R2, size), mov64_imm(R3, self.random.choice((0, 0, 0, 1)))]
        steps += [call("ringbuf_reserve"), jmp_imm(JEQ, R0, 0, end)]
        for offset in range(0, size, 8):
            steps.append(stx_mem(DW, R0, R7, offset))
        give_back = self.random.choice(("ringbuf_submit", "ringbuf_discard"))
        return [*steps, mov64_reg(R1, R0), mov64_imm(R2, 0), call(give_back), alu64_imm(ADD, R7, 5), label(end)]

    def ring_dynptr(self) -> Steps:
        size = self.random.choice((8, 16, 5000, 1 << 25))
        steps = [*self._word(-8, False), ld_map(R1, "ring"), mov64_imm(R2, size)]
        steps += [mov64_imm(R3, self.random.choice((0, 0, 1))), *self._pointer(R4, -32), call("ringbuf_reserve_dynptr")]
        steps += [*self.fold(), *self._pointer(R1, -32), mov64_imm(R2, self.random.choice((0, 3, 8, 12)))]
        steps += [*self._pointer(R3, -8), mov64_imm(R4, 8), mov64_imm(R5, 0), call("dynptr_write"), *self.fold()]
        give_back = self.random.choice(("ringbuf_submit_dynptr", "ringbuf_discard_dynptr"))
        return [*steps, *self._pointer(R1, -32), mov64_imm(R2, 0), call(give_back)]

    def dynptr(self) -> Steps:
        end = self._label()
        size, flags = self.random.choice((0, 8, 24)), self.random.choice((0, 0, 0, 1))
        steps = [st_mem(DW, R10, -8, 0), ld_map(R1, "arr2"), *self._pointer(R2, -8), call("map_lookup_elem")]
        steps += [jmp_imm(JEQ, R0, 0, end), mov64_reg(R1, R0), mov64_imm(R2, size), mov64_imm(R3, flags)]
        steps += [*self._pointer(R4, -32), call("dynptr_from_mem"), *self.fold()]
        offset, length = self.random.choice((0, 1, 8, 30)), self.random.choice((0, 1, 8))
        steps += [*self._word(-16, False), *self._pointer(R1, -32), mov64_imm(R2, offset), *self._pointer(R3, -16)]
        steps += [mov64_imm(R4, length), mov64_imm(R5, self.random.choice((0, 0, 1))), call("dynptr_write")]
        steps += self.fold()
        steps += [*self._pointer(R1, -16), mov64_imm(R2, length), *self._pointer(R3, -32), mov64_imm(R4, offset)]
        steps += [mov64_imm(R5, 0), call("dynptr_read"), *self.fold(), ldx_mem(DW, R1, R10, -16), *self.fold(R1)]
        steps += [*self._pointer(R1, -32), mov64_imm(R2, self.random.choice((0, 4, 17))), mov64_imm(R3, 8)]
        steps += [call("dynptr_data"), jmp_imm(JEQ, R0, 0, end), ldx_mem(DW, R1, R0, 0), *self.fold(R1), label(end)]
        return steps

    def _bytes(self, text: bytes, offset: int) -> Steps:
        padded = text.ljust((len(text) + 3) // 4 * 4, b"\0")
        words = (int.from_bytes(padded[i : i + 4], "little", signed=True) for i in range(0, len(padded), 4))
        return [st_mem(W, R10, offset + 4 * n, word) for n, word in enumerate(words)]

    def numbers(self) -> Steps:
        text = self.random.choice(NUMBERS_TEXT).encode()
        size = max(len(text) + self.random.choice((0, 0, 1)), 1)
        steps = [*self._bytes(text.ljust(size + 4, b"\0"), -48), *self._pointer(R1, -48), mov64_imm(R2, size)]
        steps += [mov64_imm(R3, self.random.choice((0, 0, 8, 10, 16, 2, 32))), *self._pointer(R4, -8)]
        steps += [call(self.random.choice(("strtol", "strtoul"))), *self.fold(), ldx_mem(DW, R1, R10, -8)]
        return [*steps, *self.fold(R1)]

    def compare(self) -> Steps:
        text = self.random.choice((b"%d\0\0", b"%5d|%-6", b"%d", b"abc", b"%4"))
        steps = [*self._bytes(text.ljust(8, b"\0"), -8), *self._pointer(R1, -8), mov64_imm(R2, len(text))]
        return [*steps, ld_map_value(R3, "ro", self.random.choice(STARTS[:4])), call("strncmp"), *self.fold()]

    def _arguments(self, format: str) -> tuple[Steps, int]:
        """Eight-byte arguments from fp-96 on for a format; strings and addresses in memory that is the same on both
        sides."""
        count = min(format.replace("%%", "").count("%"), 12)
        steps: Steps = []
        pointers = any(p in format for p in ("%s", "%10s", "%-1", "ks", "us", "I4", "i4", "I6", "i6"))
        for n in range(count):
            if format == "%p":
                steps.append(st_mem(DW, R10, -96 + 8 * n, self.random.choice((0, -2))))
            elif pointers and self.random.random() < 0.8:
                steps += [ld_map_value(R1, "ro", self.random.choice(STARTS)), stx_mem(DW, R10, R1, -96 + 8 * n)]
            elif "p" in format and "x" not in format:
                steps.append(st_mem(DW, R10, -96 + 8 * n, self.random.choice((0, 5, 4096))))
            else:
                steps.append(stx_mem(DW, R10, self.random.choice((R7, R8, R9)), -96 + 8 * n))
        if pointers and any(c in format for c in "dxu") and "us" not in format:
            return [s for n in range(count) for s in [st_mem(DW, R10, -96 + 8 * n, n + 1)]], count
        return steps, count

    def text(self) -> Steps:
        number = self.random.randrange(len(FORMATS))
        steps, count = self._arguments(FORMATS[number])
        size = self.random.choice((1, 8, 32, 64))
        for offset in range(-160, -96, 8):
            steps.append(st_mem(DW, R10, offset, 0))
        steps += [*self._pointer(R1, -160), mov64_imm(R2, size), ld_map_value(R3, "ro", STARTS[number])]
        steps += [*self._pointer(R4, -96), mov64_imm(R5, 8 * count)]
        if not count:
            steps[-3:] = [mov64_imm(R4, 0), mov64_imm(R5, 0)]
        steps += [call("snprintf"), *self.fold()]
        for offset in range(-160, -96, 8):
            steps += [ldx_mem(DW, R1, R10, offset), *self.fold(R1)]
        return steps

    def trace(self) -> Steps:
        """Only the return value counts; formats that snprintf's checks would refuse at load come through here."""
        number = self.random.randrange(len(FORMATS))
        steps, count = self._arguments(FORMATS[number])
        size = len(FORMATS[number]) + self.random.choice((0, 1, 1, 1))
        wrong = self.random.choice((0, 0, 0, -1, 1))
        count = max(min(count + wrong, 12), 0)
        steps += [st_mem(DW, R10, -96 + 8 * n, 7) for n in range(count - wrong, count)]
        steps += [ld_map_value(R1, "ro", STARTS[number]), mov64_imm(R2, max(size, 1)), *self._pointer(R3, -96)]
        steps += [mov64_imm(R4, 8 * count), call("trace_vprintk"), *self.fold()]
        return steps

    def loop(self) -> Steps:
        name, stop = f"loop{self._label()}", self.random.choice((1, 3, 100))
        body = [ldx_mem(DW, R3, R2, 0), alu64_imm(MUL, R3, 7), alu64_reg(ADD, R3, R1), stx_mem(DW, R2, R3, 0)]
        if self.random.random() < 0.3:
            body += [mov64_reg(R6, R1), mov64_reg(R7, R2), *self._word(-8), ld_map(R1, "hash"), *self._pointer(R2, -8)]
            body += [call("map_delete_elem"), ldx_mem(DW, R3, R7, 0), alu64_reg(XOR, R3, R0), stx_mem(DW, R7, R3, 0)]
            body.append(mov64_reg(R1, R6))
        out = f"{name}out"
        body += [mov64_imm(R0, 0), jmp_imm(JLT, R1, stop, out), mov64_imm(R0, 1), label(out), exit_()]
        self._tails += [label(name), *body]
        count = self.random.choice((0, 1, 2, 6, 1 << 23, -1)) if stop < 100 else 9
        steps = [*self._word(-8, False), mov64_imm(R1, count), ld_func(R2, name), *self._pointer(R3, -8)]
        steps += [mov64_imm(R4, self.random.choice((0, 0, 0, 1))), call("loop")]
        return [*steps, *self.fold(), ldx_mem(DW, R1, R10, -8), *self.fold(R1)]

    def each(self) -> Steps:
        """A walk whose result does not depend on the order of entries, which the kernel's random seed decides."""
        name, over = f"each{self._label()}", self.random.choice(("arr", "pa", "hash", "ph", "lru", "arr2"))
        ordered = SPECS[over].kind.endswith("ARRAY")
        body = [ldx_mem(W, R5, R2, 0), ldx_mem(DW, R2, R3, 0), ldx_mem(DW, R1, R4, 0)]
        body += [alu64_reg(MUL, R2, R2), alu64_reg(ADD, R1, R2), alu64_imm(MUL, R5, 77), alu64_reg(ADD, R1, R5)]
        body += [stx_mem(DW, R4, R1, 0)]
        if self.random.random() < 0.4:
            body += [alu64_imm(ADD, R2, 3), stx_mem(DW, R3, R2, 0)]
        body += [mov64_imm(R0, 1 if ordered and self.random.random() < 0.2 else 0), exit_()]
        self._tails += [label(name), *body]
        steps = [*self._word(-8, False), ld_map(R1, over), ld_func(R2, name), *self._pointer(R3, -8)]
        steps += [mov64_imm(R4, self.random.choice((0, 0, 0, 1))), call("for_each_map_elem"), *self.fold()]
        return [*steps, ldx_mem(DW, R1, R10, -8), *self.fold(R1)]

    def function(self) -> Steps:
        """A subprogram; some read the packet, which ends them alone when it fails."""
        name, body = f"f{self._label()}", [mov64_reg(R9, R1), alu64_imm(MUL, R9, 5)]
        if self.random.random() < 0.5:
            where = self.random.choice((0, 10, 150))
            body += [mov64_reg(R6, R2), ld_abs(self.random.choice((B, H)), where), alu64_reg(ADD, R9, R0)]
        elif self.random.random() < 0.5:
            inner = f"g{self._label()}"
            self._tails += [label(inner), alu64_imm(XOR, R1, 99), mov64_reg(R6, R1), mov64_reg(R0, R6), exit_()]
            body += [call_local(inner), alu64_reg(SUB, R9, R0)]
        else:
            body += [mov64_reg(R1, R2), ld_map(R2, "jump"), mov64_imm(R3, self.random.randint(0, 4)), call("tail_call")]
        self._tails += [label(name), *body, mov64_reg(R0, R9), exit_()]
        return [mov64_reg(R1, R7), mov64_reg(R2, R6), call_local(name), *self.fold()]

    def control_block(self) -> Steps:
        offset = 48 + 4 * self.random.randint(0, 3)
        if self.random.random() < 0.5:
            return [stx_mem(W, R6, R7, offset)]
        return [ldx_mem(self.random.choice((B, H, W)), R1, R6, offset), *self.fold(R1)]

    def tail_call(self) -> Steps:
        index = self.random.choice((0, 1, 2, 2, 3, 4, -1))
        return [mov64_reg(R1, R6), ld_map(R2, "jump"), mov64_imm(R3, index), call("tail_call"), alu64_imm(ADD, R7, 13)]

    def plain(self) -> Steps:
        what = self.random.choice(("get_smp_processor_id", "get_numa_node_id", "get_socket_uid", "get_netns_cookie"))
        return [mov64_reg(R1, R6), call(what), *self.fold()]


def _maps(steps: Steps) -> set[str]:
    return {step.map for step in steps if getattr(step, "map", None)}
