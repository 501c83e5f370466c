"""Pieces of random programs that hand something out or take something in, and those that work on text."""

from __future__ import annotations

from helper_pieces import FORMATS, NUMBERS_TEXT, STARTS, Pieces, Steps

from pktbpf.asm.builder import (
    ADD,
    DW,
    JEQ,
    JNE,
    MUL,
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
    W,
    alu64_imm,
    alu64_reg,
    call,
    exit_,
    jmp_imm,
    label,
    ld_func,
    ld_imm64,
    ld_map,
    ld_map_value,
    ldx_mem,
    mov64_imm,
    mov64_reg,
    st_mem,
    stx_mem,
)  # fmt: skip


class EventPieces(Pieces):
    """Ring buffers, perf events, dynptrs, samples of user space, strings and traces."""

    def ring(self) -> Steps:
        if self.random.random() < 0.3:
            what = mov64_imm(R2, self.random.randint(0, 4))
            return [ld_map(R1, "ring"), what, call("ringbuf_query"), *self.fold()]
        size = self.random.choice((0, 1, 8, 13, 24))
        steps = [*self.word(-24, False), *self.word(-16), *self.word(-8)]
        steps += [ld_map(R1, "ring"), *self.pointer(R2, -24)]
        steps += [mov64_imm(R3, size), mov64_imm(R4, self.random.choice((0, 1, 2, 3, 4))), call("ringbuf_output")]
        return [*steps, *self.fold()]

    def ring_record(self) -> Steps:
        end, size = self.label(), self.random.choice((8, 24, 400, 1500))
        steps = [ld_map(R1, "ring"), mov64_imm(R2, size), mov64_imm(R3, self.random.choice((0, 0, 0, 1)))]
        steps += [call("ringbuf_reserve"), jmp_imm(JEQ, R0, 0, end)]
        for offset in sorted({0, 8, 16, size // 8 * 8 - 8} & set(range(0, size, 8))):
            steps.append(stx_mem(DW, R0, R7, offset))
        give_back = self.random.choice(("ringbuf_submit", "ringbuf_discard"))
        steps += [mov64_reg(R1, R0), mov64_imm(R2, self.random.choice((0, 1, 2))), call(give_back)]
        return [*steps, alu64_imm(ADD, R7, 5), label(end)]

    def ring_dynptr(self) -> Steps:
        size = self.random.choice((8, 16, 5000, 1 << 25))
        steps = [*self.word(-8, False), ld_map(R1, "ring"), mov64_imm(R2, size)]
        steps += [mov64_imm(R3, self.random.choice((0, 0, 1))), *self.pointer(R4, -32), call("ringbuf_reserve_dynptr")]
        steps += [*self.fold(), *self.pointer(R1, -32), mov64_imm(R2, self.random.choice((0, 3, 8, 12)))]
        steps += [*self.pointer(R3, -8), mov64_imm(R4, 8), mov64_imm(R5, 0), call("dynptr_write"), *self.fold()]
        give_back = self.random.choice(("ringbuf_submit_dynptr", "ringbuf_discard_dynptr"))
        return [*steps, *self.pointer(R1, -32), mov64_imm(R2, self.random.choice((0, 1, 2))), call(give_back)]

    def perf(self) -> Steps:
        """To the ring of this processor, of another, of none; with bytes of the packet or without."""
        index = self.random.choice((0xFFFFFFFF, 0xFFFFFFFF, 0, 1, 2, 8))
        flags = index | self.random.choice((0, 0, 1, 5, 20, 300)) << 32 | self.random.choice((0, 0, 0, 1)) << 52
        steps = [*self.word(-24, False), *self.word(-16), *self.word(-8, False), mov64_reg(R1, R6), ld_map(R2, "perf")]
        steps += [ld_imm64(R3, flags), *self.pointer(R4, -24), mov64_imm(R5, self.random.choice((0, 1, 8, 13, 24)))]
        return [*steps, call("perf_event_output"), *self.fold()]

    def drain(self) -> Steps:
        """Samples of user space through a callback that looks into each and may stop."""
        name, over = f"drain{self.label()}", self.label()
        body = [mov64_reg(R7, R2), mov64_reg(R3, R1), st_mem(DW, R10, -8, 0), *self.pointer(R1, -8)]
        body += [mov64_imm(R2, self.random.choice((1, 4))), mov64_imm(R4, 0), mov64_imm(R5, 0), call("dynptr_read")]
        body += [ldx_mem(DW, R1, R10, -8), alu64_imm(MUL, R0, 3), alu64_reg(ADD, R1, R0), ldx_mem(DW, R2, R7, 0)]
        body += [alu64_imm(MUL, R2, 5), alu64_reg(ADD, R2, R1), stx_mem(DW, R7, R2, 0), mov64_imm(R0, 0)]
        body += [jmp_imm(JNE, R1, self.random.choice((ord("f"), 1)), over), mov64_imm(R0, 1), label(over), exit_()]
        self._tails += [label(name), *body]
        steps = [*self.word(-8, False), ld_map(R1, "user"), ld_func(R2, name), *self.pointer(R3, -8)]
        steps += [mov64_imm(R4, self.random.choice((0, 0, 0, 1, 2, 4))), call("user_ringbuf_drain"), *self.fold()]
        return [*steps, ldx_mem(DW, R1, R10, -8), *self.fold(R1)]

    def dynptr(self) -> Steps:
        end = self.label()
        size, flags = self.random.choice((0, 8, 24)), self.random.choice((0, 0, 0, 1))
        steps = [st_mem(DW, R10, -8, 0), ld_map(R1, "arr2"), *self.pointer(R2, -8), call("map_lookup_elem")]
        steps += [jmp_imm(JEQ, R0, 0, end), mov64_reg(R1, R0), mov64_imm(R2, size), mov64_imm(R3, flags)]
        steps += [*self.pointer(R4, -32), call("dynptr_from_mem"), *self.fold()]
        offset, length = self.random.choice((0, 1, 8, 30)), self.random.choice((0, 1, 8))
        steps += [*self.word(-16, False), *self.pointer(R1, -32), mov64_imm(R2, offset), *self.pointer(R3, -16)]
        steps += [mov64_imm(R4, length), mov64_imm(R5, self.random.choice((0, 0, 1))), call("dynptr_write")]
        steps += self.fold()
        steps += [*self.pointer(R1, -16), mov64_imm(R2, length), *self.pointer(R3, -32), mov64_imm(R4, offset)]
        steps += [mov64_imm(R5, 0), call("dynptr_read"), *self.fold(), ldx_mem(DW, R1, R10, -16), *self.fold(R1)]
        steps += [*self.pointer(R1, -32), mov64_imm(R2, self.random.choice((0, 4, 17))), mov64_imm(R3, 8)]
        steps += [call("dynptr_data"), jmp_imm(JEQ, R0, 0, end), ldx_mem(DW, R1, R0, 0), *self.fold(R1), label(end)]
        return steps

    def _bytes(self, text: bytes, offset: int) -> Steps:
        padded = text.ljust((len(text) + 3) // 4 * 4, b"\0")
        words = (int.from_bytes(padded[i : i + 4], "little", signed=True) for i in range(0, len(padded), 4))
        return [st_mem(W, R10, offset + 4 * n, word) for n, word in enumerate(words)]

    def numbers(self) -> Steps:
        text = self.random.choice(NUMBERS_TEXT).encode()
        size = max(len(text) + self.random.choice((0, 0, 1)), 1)
        steps = [*self._bytes(text.ljust(size + 4, b"\0"), -48), *self.pointer(R1, -48), mov64_imm(R2, size)]
        steps += [mov64_imm(R3, self.random.choice((0, 0, 8, 10, 16, 2, 32))), *self.pointer(R4, -8)]
        steps += [call(self.random.choice(("strtol", "strtoul"))), *self.fold(), ldx_mem(DW, R1, R10, -8)]
        return [*steps, *self.fold(R1)]

    def compare(self) -> Steps:
        text = self.random.choice((b"%d\0\0", b"%5d|%-6", b"%d", b"abc", b"%4"))
        steps = [*self._bytes(text.ljust(8, b"\0"), -8), *self.pointer(R1, -8), mov64_imm(R2, len(text))]
        return [*steps, ld_map_value(R3, "ro", self.random.choice(STARTS[:4])), call("strncmp"), *self.fold()]

    def _arguments(self, format: str) -> tuple[Steps, int]:
        """Eight-byte arguments from fp-96 on for a format; strings and addresses in memory that is the same on both
        sides."""
        count = min(format.replace("%%", "").count("%"), 12)
        steps: Steps = []
        pointers = _takes_addresses(format)
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
        steps += [*self.pointer(R1, -160), mov64_imm(R2, size), ld_map_value(R3, "ro", STARTS[number])]
        steps += [*self.pointer(R4, -96), mov64_imm(R5, 8 * count)]
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
        steps += [ld_map_value(R1, "ro", STARTS[number]), mov64_imm(R2, max(size, 1)), *self.pointer(R3, -96)]
        steps += [mov64_imm(R4, 8 * count), call("trace_vprintk"), *self.fold()]
        return steps

    def print(self) -> Steps:
        """trace_printk with up to three arguments; only the return value counts."""
        number = self.random.randrange(len(FORMATS))
        size = len(FORMATS[number]) + self.random.choice((0, 1, 1, 1))
        steps = [ld_map_value(R1, "ro", STARTS[number]), mov64_imm(R2, max(size, 1))]
        if _takes_addresses(FORMATS[number]):
            mixed = any(c in FORMATS[number] for c in "dxu")  # an address is not the same number on both sides
            steps += [
                mov64_imm(r, r) if mixed else ld_map_value(r, "ro", self.random.choice(STARTS)) for r in (R3, R4, R5)
            ]
        elif "p" in FORMATS[number] and "x" not in FORMATS[number]:
            steps += [mov64_imm(r, self.random.choice((0, 5, 4096))) for r in (R3, R4, R5)]
        else:
            steps += [mov64_reg(r, self.random.choice((R7, R8, R9))) for r in (R3, R4, R5)]
        return [*steps, call("trace_printk"), *self.fold()]


def _takes_addresses(format: str) -> bool:
    return any(p in format for p in ("%s", "%10s", "%-1", "ks", "us", "I4", "i4", "I6", "i6"))
