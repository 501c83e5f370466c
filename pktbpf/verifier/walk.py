"""The walk: every path through the program, instruction by instruction, until all end or one is refused.

`Walk` holds what the rules share (privileges, the current state, pending branches, explored checkpoints, marks per
instruction); `run` is the loop. Rules are functions in the topic modules, chosen once per instruction by `decode`.
Mirrors do_check and do_check_common.
"""

from __future__ import annotations

import errno
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from pktbpf.isa.extended import Insn
from pktbpf.verifier import pruning
from pktbpf.verifier.code import Op
from pktbpf.verifier.decode import decode
from pktbpf.verifier.dynptrs import invalidate_slices
from pktbpf.verifier.errors import RECOVERABLE, Refusal, refuse
from pktbpf.verifier.facts import Facts
from pktbpf.verifier.kernel_types import Kernel
from pktbpf.verifier.kernel_variables import VariableTable
from pktbpf.verifier.layout import Layout
from pktbpf.verifier.liveness import StackLiveness
from pktbpf.verifier.maps import MapInfo, MapTable
from pktbpf.verifier.pointers import Masking
from pktbpf.verifier.precision import Wanted, touched_registers
from pktbpf.verifier.profile import Profile
from pktbpf.verifier.pruning import Explored
from pktbpf.verifier.state import (
    ADD_CONST,
    CTX,
    MAX_FRAMES,
    SCALAR,
    UNKNOWN,
    UNKNOWN_PRECISE,
    UNSET,
    Frame,
    Reg,
    State,
)
from pktbpf.verifier.types import FunctionTypes
from pktbpf.verifier.words import Words

if TYPE_CHECKING:
    from pktbpf.verifier.watch import Watcher

MAX_INSNS = 1_000_000
MAX_PENDING = 8192


class Walk:
    """One verification. privilege: root, cap_bpf or none. capable: CAP_BPF. leaks_pointers, reads_unwritten_stack,
    bypass_v1, bypass_v4: what CAP_PERFMON adds. always_precise: without CAP_BPF every scalar is compared exactly."""

    def __init__(
        self,
        layout: Layout,
        maps: MapTable,
        types: FunctionTypes,
        profile: Profile,
        *,
        privilege: str,
        gpl: bool,
        cpus: int,
        log: Watcher | None,
        kernel: Kernel | None,
        variables: VariableTable,
    ):
        self.layout = layout
        self.insns: tuple[Insn, ...] = layout.insns
        self.maps = maps
        self.types = types
        self.profile = profile
        self.domain = profile.domain
        self.words = Words(profile)
        self.gpl = gpl
        self.cpus = cpus
        self.log = log
        self.kernel = kernel
        self._own: dict[int, Kernel] = {}
        self.variables = variables
        self._grant(privilege)
        size = len(self.insns)
        self.nospec = bytearray(size)
        self.nospec_result = bytearray(size)
        self.seen = bytearray(size)
        self.pointer_kinds: list[int] = [0] * size
        self.masking: dict[int, Masking] = {}
        self.recorded_maps: dict[int, MapInfo] = {}
        self.inline_loops: dict[int, tuple[bool, int]] = {}
        self.unresolved_calls: set[int] = set()
        self.explore_limits = False
        self.processed = 0
        self.jumps = 0
        self.last_id = 0
        self.index = 0
        self.before = -1
        self.recorded = False
        self.print_state = False
        self.notes: list[str] = []
        self.facts: Facts | None = Facts()
        self.ops: list[Op] = decode(self.insns, self.always_precise)
        self.live = StackLiveness(layout, log)
        self.has_fastcall = any(layout.fastcall)
        self.pending: list[tuple[State, int, int, int]] = []
        self.explored = Explored(self)
        self.wanted = Wanted()
        self.state: State
        self.regs: list[Reg]

    def _grant(self, privilege: str) -> None:
        """What the privilege allows, and the values that follow from it."""
        self.privilege = privilege
        perfmon = privilege == "root"
        self.capable = privilege != "none"
        self.leaks_pointers = self.reads_unwritten_stack = self.bypass_v1 = self.bypass_v4 = perfmon
        self.always_precise = not self.capable
        self.unknown = UNKNOWN if self.capable else UNKNOWN_PRECISE
        self.zero = Reg(SCALAR, precise=self.always_precise)
        self.unset = UNSET
        self.gone = self.unknown if perfmon else UNSET

    @cached_property
    def touched(self) -> list[int]:
        """What searches back ask of each instruction, most often none: see touched_registers."""
        return [touched_registers(insn) for insn in self.insns]

    @cached_property
    def stores(self) -> list[bool]:
        """Which instructions write memory."""
        return [insn.code & 7 in (2, 3) for insn in self.insns]

    # ---- ids, links, history

    def new_id(self) -> int:
        """A fresh id for a pointer, a reference or a link between scalars."""
        self.last_id += 1
        return self.last_id

    def link(self, number: int) -> Reg:
        """Register `number`, a scalar given an id so that a copy of it stays linked."""
        reg = self.regs[number]
        if reg.kind != SCALAR:
            return reg
        if reg.id & ADD_CONST:
            reg = self.regs[number] = reg.with_id(0)
        if not reg.id and reg.v[1]:
            reg = self.regs[number] = reg.with_id(self.new_id(), reg.off)
        return reg

    def record(
        self,
        access: tuple[int, int] | None = None,
        flags: int = 0,
        linked: tuple[tuple[int, int, bool], ...] = (),
    ) -> None:
        """Add the current instruction, or more about it, to the recorded path."""
        history = self.state.history
        if self.recorded:
            index, before, old_access, old_flags, _ = history[-1]
            history[-1] = (index, before, access or old_access, flags | old_flags, linked)
            return
        history.append((self.index, self.before, access, flags, linked))
        self.recorded = True

    def record_map(self, info: MapInfo) -> None:
        """Remember which map a helper call uses; another one on another path keeps it from being inlined."""
        self.recorded_maps.setdefault(self.index, info)

    def note(self, *lines: str) -> None:
        """Lines for the log that do not end the verification."""
        self.notes += lines
        if self.log is not None:
            self.log.lines(lines)

    def own_types(self, types: Any) -> Kernel:
        """Questions about structures of the program's own BTF."""
        found = self._own.get(id(types))
        if found is None:
            found = self._own[id(types)] = Kernel(types)
        return found

    def note_access(self, reg: Reg, offset: int, size: int) -> None:
        """Keep what this access was proven to be, for engines."""
        if self.facts is not None and not self.state.speculative:
            self.facts.access(self.index, reg, offset, size)

    def touch_fastcall(self, frame: Frame, offset: int) -> None:
        """An access below the spills around helper calls from elsewhere keeps those spills."""
        if not self.has_fastcall:
            return
        function = self.layout.functions[frame.subprog]
        if function.fastcall_offset <= offset or self.layout.fastcall[self.index]:
            return
        function.fastcall_offset = -32768
        for index in range(function.start, function.end):
            self.layout.fastcall[index] = 0
            self.layout.fastcall_spills.pop(index, None)

    def loop_inline(self, function: int) -> None:
        """Whether a bpf_loop call may be written out in place, which costs stack."""
        from pktbpf.verifier.precision import mark_register

        null = self.regs[4].is_null
        if null:
            mark_register(self, 4)
        known = self.inline_loops.get(self.index)
        fits = null if known is None else known[0] and null and known[1] == function
        self.inline_loops[self.index] = (fits, function)

    def invalidate_slices(self, id: int) -> None:
        """Memory that came from dynptr `id` is unusable from now on."""
        invalidate_slices(self, id)

    # ---- paths

    def branch(self, index: int, before: int, *, speculative: bool = False) -> State | None:
        """Queue a copy of the current state to continue at `index`; None when too many wait."""
        new = self.state.copy()
        new.speculative = self.state.speculative or speculative
        return new if self.push(new, index, before) else None

    def push(self, state: State, index: int, before: int, *, asynchronous: bool = False) -> bool:
        """Queue a state."""
        mark = self.log.position() if self.log is not None else 0
        self.pending.append((state, index, before, mark))
        if len(self.pending) > MAX_PENDING:
            return False
        if state.parent is not None and not asynchronous:
            state.parent.branches += 1
        return True

    def too_complex(self, number: int, what: str = "", *lines: str) -> NoReturn:
        """Too many branches wait; `number` is the errno of versions up to 6.18."""
        number = errno.E2BIG if self.profile.complexity_is_size else number
        refuse(number, f"The sequence of {len(self.pending)} jumps is too complex{what}.", *lines)

    def enter(self, state: State, number: int, callsite: int) -> Frame:
        """Add the frame of function `number` to a state. Fails with E2BIG."""
        if len(state.frames) >= MAX_FRAMES:
            refuse(errno.E2BIG, f"the call stack of {len(state.frames) + 1} frames is too deep")
        frame = Frame(callsite, len(state.frames), number, self.unset)
        state.frames.append(frame)
        if self.log is not None:
            self.log.framed()
        return frame

    def previous_entry(self, state: State, index: int) -> State | None:
        """The checkpoint of the round before, for a loop that comes back to `index`."""
        bucket = self.explored.bucket(index, self.state.frames[-1].callsite)
        return pruning.find_entry(bucket, state, index)

    def widen(self, old: State, new: State) -> None:
        """Forget ranges of `new` that differ from `old` and were not needed."""
        pruning.widen(self, old, new)

    def may_return(self, result: Reg) -> None:
        """The instruction may also end the function it stands in, with `result`: a failing packet load, a tail call.
        That way is followed first."""
        if len(self.state.frames) > 1:
            if self.branch(self.index + 1, self.index) is None:
                self.too_complex(errno.EFAULT)
            self.regs[0] = result
            finish_function(self)
            return
        self.index += 1

    # ---- the loop

    def start(self, function: int, frame: Frame) -> None:
        """Begin at a function's first instruction with the given frame."""
        start = self.layout.functions[function].start
        self.state = State(frame, start)
        self.regs = frame.regs
        self.index = start
        self.before = -1

    def main(self) -> None:
        """Verify the main function: r1 is the context."""
        frame = Frame(-1, 0, 0, self.unset)
        frame.regs[1] = Reg(CTX)
        self.start(0, frame)
        types = self.types.of(0)
        if types is not None and types.problem is not None and types.problem[1]:
            self.note(types.problem[1])
        self.run()

    def run(self) -> None:
        """Follow all paths. Stops with a Refusal whose `insn` is where it happened."""
        self.explored.restart()
        self.pending.clear()
        if self.log is not None:
            self.log.begins(self)
        try:
            self._loop()
        except Refusal as problem:
            if problem.insn is None:
                problem.insn = self.index
            problem.on_path = True
            raise
        if self.log is not None:
            self.log.ended(self)

    def _loop(self) -> None:
        prune, jump_point = self.layout.prune, self.layout.jump
        ops, live, log = self.ops, self.live, self.log
        previous = -1
        while True:
            self.recorded = False
            self.before = previous
            index = self.index
            self.processed += 1
            if self.processed > MAX_INSNS:
                refuse(errno.E2BIG, f"BPF program is too large. Processed {self.processed} insn")
            state = self.state
            state.last = previous
            state.insn = index
            ended = False
            if prune[index] and self.explored.visit(index):
                if log is not None:
                    log.pruned(self, previous, index)
                ended = True
            else:
                if jump_point[index]:
                    self.record()
                if log is not None:
                    log.instruction(self, previous, index)
                if not state.speculative:
                    self.seen[index] = 1
                previous = index
                if state.speculative and self.nospec[index]:
                    ended = True
                else:
                    ended = self._step(ops[index], index, live)
            if ended:
                self.explored.release_branch(self.state)
                live.refresh(self.state)
                if not self.pending:
                    return
                self.state, self.index, previous, mark = self.pending.pop()
                self.regs = self.state.frames[-1].regs
                self.print_state = True
                if log is not None:
                    log.popped(mark)

    def _step(self, op: Op, index: int, live: StackLiveness) -> bool:
        """Check one instruction; True when the path ends here."""
        if op.touches:
            live.begin(self.state)
        state = self.state
        try:
            ended = bool(op.run(self, op))
        except Refusal as problem:
            fenced = self.profile.fences and state.speculative
            if problem.errno not in RECOVERABLE or problem.unsupported or not fenced:
                raise
            if op.touches:
                live.commit(index)
            if self.log is not None:
                self.log.lines(problem.lines)
            # Only a mispredicted branch leads here: a barrier keeps the processor from it.
            self.nospec[index] = 1
            self.masking.pop(index, None)
            return True
        if op.touches:
            live.commit(index)
        return ended or (state.speculative and bool(self.nospec_result[index]))

    def statistics(self) -> dict[str, Any]:
        """Numbers for the last line of the log."""
        return {
            "processed": self.processed,
            "max_states_per_insn": self.explored.most_per_insn,
            "total_states": self.explored.total,
            "peak_states": self.explored.peak,
        }


def finish_function(walk: Walk) -> None:
    """Return from the current function with what its register 0 holds."""
    from pktbpf.verifier.functions import give_back

    give_back(walk)

