"""The verifier's log, in the manner of the kernel: level 1 shows the last path, 2 all of them, 4 numbers at the end.

What an instruction changed stands behind it, written when the next one begins, or at once for a conditional jump.
Below level 2 the log is cut back when a path ends to where the waiting branch was queued, byte for byte as in the
kernel, with the joined lines that this leaves. Mirrors bpf_vlog_reset, print_insn_state and what their callers print.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pktbpf.isa.extended import Insn
from pktbpf.verifier.disasm import insn_text
from pktbpf.verifier.scalar import Scalar
from pktbpf.verifier.state import State
from pktbpf.verifier.texts import frame_text
from pktbpf.verifier.tnum import M32, M64
from pktbpf.verifier.touched import touched
from pktbpf.verifier.watch import Chain, Watcher

if TYPE_CHECKING:
    from pktbpf.verifier.layout import Layout
    from pktbpf.verifier.precision import Wanted
    from pktbpf.verifier.walk import Walk

LEVEL1, LEVEL2, STATS = 1, 2, 4
NOTHING = {"processed": 0, "max_states_per_insn": 0, "total_states": 0, "peak_states": 0}
_COLUMN, _STEP = 40, 8
_ALL = -1
# The kernel forgets the line end of these.
_UNENDED = re.compile(r"expected prog array map for tail call|nonzero insn_off \d+ for the first func info record")


class Log(Watcher):
    """The text so far. level: bits as in BPF_PROG_LOAD. sources: slot -> source line that begins there, as it is
    written. names: slot of a call -> the kernel function's name."""

    def __init__(
        self, level: int, insns: tuple[Insn, ...], sources: Mapping[int, str] | None = None,
        names: Mapping[int, str] | None = None,
    ):  # fmt: skip
        self.level = level
        self.every_state = bool(level & LEVEL2)
        self.insns = insns
        self.names = names or {}
        self.sources = sources or {}
        self.source_at = _records(self.sources, len(insns))
        self.source = ""
        self.buffer = bytearray()
        # Registers and stack slots that the instruction touches, as bit masks.
        self.regs = self.slots = _ALL
        # End of the last instruction's line, and its length.
        self.end = self.width = 0

    @property
    def text(self) -> str:
        """Everything, lines ended."""
        return self.buffer.decode("utf-8", "replace")

    def line(self, text: str) -> None:
        """One whole line."""
        self.buffer += f"{text}\n".encode("utf-8", "replace")

    # ---- before the walk

    def shaped(self, layout: Layout) -> None:
        """Where functions begin; only at level 2."""
        if self.level & LEVEL2:
            for text in layout.log:
                self.line(text)

    def analysed(self, layout: Layout) -> None:
        """Which registers are read later, and which loop an instruction stands in; only at level 2."""
        if not self.level & LEVEL2:
            return
        self.line("Live regs before insn:")
        index = 0
        while index < len(self.insns):
            loop = f"{layout.scc[index]:3d} " if layout.scc[index] else "    "
            live = "".join(str(n) if layout.live[index] >> n & 1 else "." for n in range(10))
            self.line(f"{loop}{index:3d}: {live} {self._insn(index)}")
            index += 2 if self.insns[index].code == 0x18 else 1

    def _insn(self, index: int) -> str:
        second = self.insns[index + 1] if index + 1 < len(self.insns) else None
        return insn_text(self.insns[index], second, self.names.get(index))

    # ---- the walk

    def begins(self, walk: Walk) -> None:
        """Every register is new."""
        self.regs = self.slots = _ALL
        self.source = ""
        walk.print_state = False

    def instruction(self, walk: Walk, previous: int, index: int) -> None:
        """First what the instruction before changed, then this one."""
        if walk.print_state and self.level & LEVEL2:
            state = frame_text(walk.state, len(walk.state.frames) - 1)
            self.line(f"\n{self._from(walk, previous, index)}{state}")
        walk.print_state = False
        if self.regs or self.slots:
            self._state(walk, index)
        self._source(index)
        start = len(self.buffer)
        self.line(f"{index}: {self._insn(index)}")
        self.end = len(self.buffer)
        self.width = self.end - start
        self.regs, self.slots = touched(walk, index)

    def _source(self, index: int) -> None:
        """The source line, where another one begins."""
        source = self.source_at[index]
        if source and source != self.source:
            self.source = source
            self.line(f"; {source}")

    def branched(self, walk: Walk, index: int) -> None:
        """A conditional jump shows at once what it learned."""
        self._state(walk, index)

    def _state(self, walk: Walk, index: int) -> None:
        """The touched registers, behind the instruction if nothing was printed since, else on their own line."""
        text = frame_text(walk.state, len(walk.state.frames) - 1, self.regs, self.slots)
        if self.end and self.end == len(self.buffer):
            del self.buffer[self.end - 1 :]
            column = max(self.width + _STEP // 2, _COLUMN)
            column = (column + _STEP - 1) // _STEP * _STEP
            self.line(f"{' ' * (column - self.width - 1)};{text}")
        else:
            self.line(f"{index}:{text}")
        self.regs = self.slots = 0

    @staticmethod
    def _from(walk: Walk, previous: int, index: int) -> str:
        return f"from {previous} to {index}{' (speculative execution)' if walk.state.speculative else ''}:"

    def pruned(self, walk: Walk, previous: int, index: int) -> None:
        """An equal or wider state was explored from here before."""
        self.line(f"\n{self._from(walk, previous, index)} safe" if walk.print_state else f"{index}: safe")

    def position(self) -> int:
        """Where the log stands when a branch is queued."""
        return len(self.buffer)

    def popped(self, mark: int) -> None:
        """Below level 2 the path that ended is forgotten."""
        self.regs = self.slots = _ALL
        if not self.level & LEVEL2:
            del self.buffer[mark:]

    def ended(self, walk: Walk) -> None:
        """Below level 2 all is well and nothing is left to be said."""
        if not self.level & LEVEL2:
            self.buffer.clear()

    def lines(self, lines: tuple[str, ...]) -> None:
        """Other lines."""
        for text in lines:
            self.line(text)
            if _UNENDED.fullmatch(text):
                del self.buffer[-1:]

    def contradiction(self, where: str, v: Scalar) -> None:
        """In the kernel this counts as a fault of its own."""
        what = "const subreg tnum out of sync with range bounds"
        if v[2] > v[3] or v[4] > v[5] or v[6] > v[7] or v[8] > v[9]:
            what = "range bounds violation"
        elif not v[1] and not v[4] == v[5] == v[0] == v[2] & M64 == v[3] & M64:
            what = "const tnum out of sync with range bounds"
        wide = [f"{v[n] & M64:#x}" for n in (4, 5, 2, 3)]
        half = [f"{v[n] & M32:#x}" for n in (8, 9, 6, 7)]
        self.line(
            f"verifier bug: REG INVARIANTS VIOLATION ({where}): {what} u64=[{wide[0]}, {wide[1]}] s64=[{wide[2]}, "
            f"{wide[3]}] u32=[{half[0]}, {half[1]}] s32=[{half[2]}, {half[3]}] var_off=({v[0]:#x}, {v[1]:#x})"
        )

    def framed(self) -> None:
        """All registers and slots are shown with the next state."""
        self.regs = self.slots = _ALL

    def entered(self, walk: Walk) -> None:
        """Both frames in full."""
        last = len(walk.state.frames) - 1
        self.lines(("caller:", frame_text(walk.state, last - 1), "callee:", frame_text(walk.state, last)))

    def returning(self, walk: Walk, index: int) -> None:
        """Both frames in full."""
        last = len(walk.state.frames) - 1
        self.lines(("returning from callee:", frame_text(walk.state, last)))
        self.lines((f"to caller at {index}:", frame_text(walk.state, last - 1)))

    def loop_limit(self, walk: Walk) -> None:
        if self.level & LEVEL2:
            self.line(f"frame{len(walk.state.frames) - 1} bpf_loop iteration limit reached")

    # ---- precision and loops, level 2

    def precise_start(self, wanted: Wanted, index: int, first: int, following: int) -> None:
        if self.level & LEVEL2:
            head = f"mark_precise: frame{wanted.frame}: last_idx {index} first_idx {first}"
            self.line(f"{head} subseq_idx {following} ")

    def precise_step(self, walk: Walk, wanted: Wanted, index: int) -> None:
        if self.level & LEVEL2 and self.insns[index].code:
            self.line(f"{_wanted_text(wanted, wanted.frame)} before {index}: {self._insn(index)}")

    def precise_parent(self, walk: Walk, state: State, wanted: Wanted, frame: int) -> None:
        if self.level & LEVEL2:
            head = f"mark_precise: frame{frame}: parent state {_names(wanted, frame)}: "
            self.line(head + frame_text(state, frame))

    def precise_all(self, state: State) -> None:
        if self.level & LEVEL2:
            self.line(f"mark_precise: frame{len(state.frames) - 1}: falling back to forcing all scalars precise")

    def forced(self, frame: int, text: str) -> None:
        if self.level & LEVEL2:
            self.line(f"force_precise: frame{frame}: forcing {text} to be precise")

    def propagating(self, number: int, wanted: Wanted) -> None:
        names = [f"r{n}" for n in range(10) if wanted.regs[number] >> n & 1]
        names += [f"fp{-8 * (n + 1)}" for n in range(64) if wanted.slots[number] >> n & 1]
        if self.level & LEVEL2 and names:
            self.line(f"frame {number}: propagating {','.join(names)}")

    def loop(self, word: str, chain: Chain) -> None:
        if self.level & LEVEL2:
            self.line(f"SCC {word} ({','.join(map(str, (*chain[0], chain[1])))})")

    def live_stack(
        self, chain: tuple[int, ...], frame: int, index: int, old: tuple[int, int], new: tuple[int, int]
    ) -> None:
        for word, before, after in (("live", old[0], new[0]), ("written", old[1], new[1])):
            if before != after:
                more, fewer = after & ~before, before & ~after
                changes = f"+{word} {_slots(more)} " if more else ""
                changes += f"-{word} {_slots(fewer)}" if fewer else ""
                self.line(f"({','.join(map(str, chain))}) frame {frame} insn {index} {changes}")

    def live_rounds(self, chain: tuple[int, ...], rounds: int) -> None:
        self.line(f"({','.join(map(str, chain))}) live stack update done in {rounds} iterations")

    # ---- the end

    def finish(self, numbers: dict[str, Any], microseconds: int, depth: str) -> None:
        """The last lines, with the numbers of the walk; level 4 adds time and stack."""
        if self.level & STATS:
            self.lines((f"verification time {microseconds} usec", f"stack depth {depth}"))
        self.line(
            f"processed {numbers['processed']} insns (limit 1000000) max_states_per_insn "
            f"{numbers['max_states_per_insn']} total_states {numbers['total_states']} "
            f"peak_states {numbers['peak_states']} mark_read 0"
        )


def _records(sources: Mapping[int, str], size: int) -> list[str]:
    """The source line of every slot, empty for none."""
    out, last = [], ""
    for index in range(size):
        last = sources.get(index, last)
        out.append(last)
    return out


def _names(wanted: Wanted, frame: int) -> str:
    regs = ",".join(f"r{n}" for n in range(10) if wanted.regs[frame] >> n & 1)
    return f"regs={regs} stack={_slots(wanted.slots[frame])}"


def _slots(mask: int) -> str:
    return ",".join(f"-{8 * (n + 1)}" for n in range(64) if mask >> n & 1)


def _wanted_text(wanted: Wanted, frame: int) -> str:
    return f"mark_precise: frame{frame}: {_names(wanted, frame)}"
