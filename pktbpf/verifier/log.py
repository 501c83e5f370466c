"""The verifier's log, in the manner of the kernel: level 1 shows the last path, 2 all of them, 4 numbers at the end.

`Log` is told of every instruction before it is checked and prints, before the next one, the registers and stack slots
that it touched. Level 1 forgets a path when the next begins, as the kernel does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pktbpf.isa.extended import Insn
from pktbpf.verifier.state import STACK, Slot, State
from pktbpf.verifier.texts import frame_text, insn_text

if TYPE_CHECKING:
    from pktbpf.verifier.layout import Layout
    from pktbpf.verifier.precision import Wanted
    from pktbpf.verifier.walk import Walk

LEVEL1, LEVEL2, STATS = 1, 2, 4
NOTHING = {"processed": 0, "max_states_per_insn": 0, "total_states": 0, "peak_states": 0}
_COLUMN = 40
_ALL = -1


class Log:
    """Lines so far; `text` joins them. level: bits as in BPF_PROG_LOAD."""

    def __init__(self, level: int, insns: tuple[Insn, ...]):
        self.level = level
        self.insns = insns
        self.out: list[str] = []
        self.regs = _ALL
        self.slots = _ALL
        self.stack: list[Slot] | None = None
        self.printed = -1
        self.jump: int | None = None
        self.shown: dict[int, str] = {}
        self.start = True

    @property
    def text(self) -> str:
        """Everything, lines ended."""
        return "\n".join([*self.out, ""]) if self.out else ""

    # ---- the walk

    def functions(self, layout: Layout) -> None:
        """Where functions begin; only at level 2."""
        if self.level & LEVEL2:
            self.out += layout.log

    def live_registers(self, layout: Layout) -> None:
        """Which registers are read later, and which loop an instruction stands in; only at level 2."""
        if not self.level & LEVEL2:
            return
        self.out.append("Live regs before insn:")
        index = 0
        while index < len(self.insns):
            loop = f"{layout.scc[index]:3d} " if layout.scc[index] else "    "
            live = "".join(str(n) if layout.live[index] >> n & 1 else "." for n in range(10))
            self.out.append(f"{loop}{index:3d}: {live} {self._insn(index)}")
            index += 2 if self.insns[index].code == 0x18 else 1

    def _insn(self, index: int) -> str:
        second = self.insns[index + 1] if index + 1 < len(self.insns) else None
        return insn_text(self.insns[index], second)

    def instruction(self, walk: Walk, previous: int, index: int) -> None:
        """An instruction is about to be checked: first what the one before changed, then its own line."""
        if walk.print_state and not self.start and self.level & LEVEL2:
            self.out += ["", self._from(walk, previous, index) + frame_text(walk.state, len(walk.state.frames) - 1)]
        walk.print_state = self.start = False
        self._state(walk, index)
        self.out.append(f"{index}: {self._insn(index)}")
        self.printed = len(self.out) - 1
        self.shown[self.printed] = self.out[-1]
        self.regs, self.slots = self._touched(walk, index)
        code = self.insns[index].code
        self.jump = index if code & 7 in (5, 6) and code & 0xF0 not in (0x80, 0x90) else None
        # What a jump teaches of stack slots is not shown with it.
        self.stack = walk.state.frames[-1].stack[:] if self.jump is None else None

    def _state(self, walk: Walk, index: int) -> None:
        """The touched registers, behind the instruction if nothing was printed since, else on their own line."""
        frame = walk.state.frames[-1]
        if self.stack is not None:
            for number, slot in enumerate(frame.stack):
                if number >= len(self.stack) or slot is not self.stack[number]:
                    self.slots |= 1 << number
        self.stack = None
        if not self.regs and not self.slots:
            return
        text = frame_text(walk.state, len(walk.state.frames) - 1, self.regs, self.slots)
        if not text:
            self.regs = self.slots = 0
            return
        if self.printed >= 0 and self.printed == len(self.out) - 1:
            line = self.out[-1]
            column = (max(len(line) + 5, _COLUMN) + 7) // 8 * 8 - 2
            self.out[-1] = f"{line.ljust(column)};{text}"
        else:
            # A conditional jump shows what it learned at once, everything else when the next instruction begins.
            self.out.append(f"{index if self.jump is None else self.jump}:{text}")
        self.regs = self.slots = 0

    def _touched(self, walk: Walk, index: int) -> tuple[int, int]:
        insn = self.insns[index]
        kind = insn.code & 7
        regs, slots = 1 << insn.dst, 0
        if insn.code in (0x05, 0x06, 0xE5):
            return 0, 0
        if insn.code in (0x85, 0x95):
            return (0 if insn.src == 1 or insn.code == 0x95 else 1), 0
        if kind in (1, 3) or _two_registers(insn):
            regs |= 1 << insn.src
        if kind == 0 and insn.code != 0x18:
            regs = 1 | 1 << 6 | (1 << insn.src if insn.code & 0xE0 == 0x40 else 0)
        if kind in (1, 2, 3):
            pointer = walk.regs[insn.src if kind == 1 else insn.dst]
            if pointer.kind == STACK and not pointer.v[1] and pointer.frame == len(walk.state.frames) - 1:
                slots |= 1 << max(0, (-(pointer.off + insn.off + pointer.v[2]) - 1) >> 3)
        return regs, slots

    @staticmethod
    def _from(walk: Walk, previous: int, index: int) -> str:
        return f"from {previous} to {index}{' (speculative execution)' if walk.state.speculative else ''}:"

    def pruned(self, walk: Walk, previous: int, index: int) -> None:
        """An equal or wider state was explored from here before."""
        if walk.print_state:
            self.out += ["", f"{self._from(walk, previous, index)} safe"]
        else:
            self.out.append(f"{index}: safe")

    def position(self) -> int:
        """Mark of a branch that waits."""
        return len(self.out)

    def popped(self, mark: int) -> None:
        """The next path begins; below level 2 the last one is forgotten."""
        self.stack = None
        self.regs = self.slots = _ALL
        if not self.level & LEVEL2:
            del self.out[mark:]
            if mark and mark - 1 in self.shown:
                self.out[-1] = self.shown[mark - 1]
            self.printed = -1

    def lines(self, lines: tuple[str, ...]) -> None:
        """Other lines."""
        self.out += lines

    def entered(self, walk: Walk) -> None:
        """A call of a function of the program."""
        last = len(walk.state.frames) - 1
        self.out += ["caller:", frame_text(walk.state, last - 1), "callee:", frame_text(walk.state, last)]
        self.regs = self.slots = _ALL
        self.stack = None

    def returning(self, walk: Walk, index: int) -> None:
        """The end of such a call; the frames are still both there."""
        last = len(walk.state.frames) - 1
        self.out += ["returning from callee:", frame_text(walk.state, last)]
        self.out += [f"to caller at {index}:", frame_text(walk.state, last - 1)]
        self.stack = None

    def loop_limit(self, walk: Walk) -> None:
        """All rounds of a bpf_loop are explored."""
        if self.level & LEVEL2:
            self.out.append(f"frame{len(walk.state.frames) - 1} bpf_loop iteration limit reached")

    # ---- precision and loops, level 2

    def precise_start(self, wanted: Wanted, index: int, first: int, following: int) -> None:
        """A search backwards begins or goes on before a checkpoint."""
        if self.level & LEVEL2:
            head = f"mark_precise: frame{wanted.frame}: last_idx {index} first_idx {first}"
            self.out.append(f"{head} subseq_idx {following} ")

    def precise_step(self, walk: Walk, wanted: Wanted, index: int) -> None:
        """One instruction of it."""
        if self.level & LEVEL2 and self.insns[index].code:
            self.out.append(f"{_wanted_text(wanted, wanted.frame)} before {index}: {self._insn(index)}")

    def precise_parent(self, walk: Walk, state: State, wanted: Wanted, frame: int) -> None:
        """A checkpoint got the marks of one frame."""
        if self.level & LEVEL2:
            head = f"mark_precise: frame{frame}: parent state {_names(wanted, frame)}: "
            self.out.append(head + frame_text(state, frame))

    def precise_all(self, state: State) -> None:
        """The search gave up."""
        if self.level & LEVEL2:
            self.out.append(f"mark_precise: frame{len(state.frames) - 1}: falling back to forcing all scalars precise")

    def forced(self, frame: int, text: str) -> None:
        """One scalar marked then."""
        if self.level & LEVEL2:
            self.out.append(f"force_precise: frame{frame}: forcing {text} to be precise")

    def propagating(self, number: int, wanted: Wanted) -> None:
        """What an equal checkpoint needed precisely."""
        names = [f"r{n}" for n in range(10) if wanted.regs[number] >> n & 1]
        names += [f"fp{-8 * (n + 1)}" for n in range(64) if wanted.slots[number] >> n & 1]
        if self.level & LEVEL2 and names:
            self.out.append(f"frame {number}: propagating {','.join(names)}")

    def loop(self, word: str, chain: tuple[tuple[int, ...], int]) -> None:
        """A stay in a loop begins or ends, or comes back to an explored state."""
        if self.level & LEVEL2:
            self.out.append(f"SCC {word} ({','.join(map(str, (*chain[0], chain[1])))})")

    # ---- the end

    def frame_text(self, state: State) -> str:
        """The innermost frame, for an endless loop."""
        return frame_text(state, len(state.frames) - 1)

    def finish(self, numbers: dict[str, Any], microseconds: int, depth: str, *, accepted: bool) -> None:
        """The last lines, with the numbers of the walk; level 4 adds time and stack."""
        if accepted and not self.level & LEVEL2:
            self.out.clear()
        if self.level & STATS:
            self.out += [f"verification time {microseconds} usec", f"stack depth {depth}"]
        self.out.append(
            f"processed {numbers['processed']} insns (limit 1000000) max_states_per_insn "
            f"{numbers['max_states_per_insn']} total_states {numbers['total_states']} "
            f"peak_states {numbers['peak_states']} mark_read 0"
        )


def _two_registers(insn: Insn) -> bool:
    kind = insn.code & 7
    return bool(insn.code & 8) and (kind in (5, 6) or (kind in (4, 7) and insn.code & 0xF0 != 0xD0))


def _names(wanted: Wanted, frame: int) -> str:
    regs = ",".join(f"r{n}" for n in range(10) if wanted.regs[frame] >> n & 1)
    slots = ",".join(f"-{8 * (n + 1)}" for n in range(64) if wanted.slots[frame] >> n & 1)
    return f"regs={regs} stack={slots}"


def _wanted_text(wanted: Wanted, frame: int) -> str:
    return f"mark_precise: frame{frame}: {_names(wanted, frame)}"
