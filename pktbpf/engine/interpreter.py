"""The interpreter: what a program needs to run in the compiled loop (pktbpf.engine.loop), and its runs.

`ENGINE` packs and links a Verified and refuses what has no meaning off a kernel; its runner keeps the memory of the
runs and gives the loop the batch, the tables and the states of those groups of helpers that the program calls.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pktbpf.abi.context import COLUMN
from pktbpf.abi.helpers import helper_name
from pktbpf.abi.kfuncs import NUMBERS as KFUNCS
from pktbpf.abi.limits import SKB_CONTEXT_SIZE, STACK_SIZE
from pktbpf.engine import basic_helpers
from pktbpf.engine.arith import U0
from pktbpf.engine.base import Env, Outcome, Skbs
from pktbpf.engine.control_helpers import ALL_FRAMES, FRAME, SCRATCH_REGION
from pktbpf.engine.groups import ALL_HELPERS, Groups, RareState
from pktbpf.engine.linker import Linked, link
from pktbpf.engine.loop import CPU, run_batch
from pktbpf.engine.memory import (
    B_COUNT,
    B_FUNCTIONS,
    B_LAST,
    B_REGIONS,
    B_REGS,
    B_STATE,
    BLOCK,
    CONTEXT_REGION,
    PACKET_REGION,
    READ,
    STACK_REGION,
    WRITE,
)  # fmt: skip
from pktbpf.engine.rare_kernel import NUMBERS as KERNEL_FUNCTIONS
from pktbpf.engine.supported import why_not, why_not_kfunc
from pktbpf.engine.trace import TraceRecord, take
from pktbpf.errors import ProgramRefused
from pktbpf.hot import Bytes, Ints, Words
from pktbpf.maps.layout import KEY_SIZE, RIGHTS, STRIDE, WIDTH, round_up
from pktbpf.program import Verified


@dataclass(slots=True)
class Workspace:
    """Memory of one runner's runs, made once: allocating it for every batch cost 10 ns a packet.

    block: what helpers reach the rest by, see pktbpf.engine.memory. addresses: of the block, the batch's bytes, the
    metadata and the row of a timer that fires. regions: stack and context, where no map table is needed.
    """

    state: Words
    shared_meta: Ints
    stack: Bytes = field(default_factory=lambda: np.zeros(STACK_SIZE * ALL_FRAMES, dtype=np.uint8))
    context: Bytes = field(default_factory=lambda: np.zeros(SKB_CONTEXT_SIZE, dtype=np.uint8))
    scratch: Bytes = field(default_factory=lambda: np.zeros(STACK_SIZE * ALL_FRAMES, dtype=np.uint8))
    fired: Ints = field(default_factory=lambda: np.zeros(len(COLUMN), dtype=np.int64))
    frames: Words = field(default_factory=lambda: np.zeros((ALL_FRAMES, FRAME), dtype=np.uint64))
    regs: Words = field(default_factory=lambda: np.zeros(16, dtype=np.uint64))
    block: Words = field(default_factory=lambda: np.zeros(BLOCK, dtype=np.uint64))
    addresses: Words = field(default_factory=lambda: np.zeros(4, dtype=np.uint64))
    regions: Words = field(default_factory=lambda: np.zeros((CONTEXT_REGION + 1, WIDTH), dtype=np.uint64))

    aimed_at: Words | None = None

    def __post_init__(self) -> None:
        self.block[int(B_REGS) // 8] = self.regs.ctypes.data
        self.block[int(B_STATE) // 8] = self.state.ctypes.data
        self.addresses[0], self.addresses[3] = self.block.ctypes.data, self.fired.ctypes.data
        self.place(self.regions)

    def place(self, regions: Words) -> None:
        """Enter this run's memory into the first rows of a table."""
        regions[STACK_REGION, :3] = (self.stack.ctypes.data, len(self.stack), READ | WRITE)
        regions[CONTEXT_REGION, :3] = (self.context.ctypes.data, len(self.context), READ | WRITE)
        if len(regions) > SCRATCH_REGION:
            slot = max(STACK_SIZE, round_up(int(regions[:, KEY_SIZE].max())))
            if len(self.scratch) < slot * ALL_FRAMES:
                self.scratch = np.zeros(slot * ALL_FRAMES, dtype=np.uint8)
            regions[SCRATCH_REGION, :3] = (self.scratch.ctypes.data, slot * ALL_FRAMES, READ)
            regions[SCRATCH_REGION, STRIDE] = slot
            regions[PACKET_REGION, RIGHTS] = READ

    def aim(self, regions: Words, data: Bytes, meta: Ints, functions: Ints) -> None:
        """Point the block at the table, the bytes and the metadata of a run, and the slots of functions by number."""
        self.block[int(B_FUNCTIONS) // 8], self.block[int(B_LAST) // 8] = functions.ctypes.data, len(functions)
        self.block[int(B_REGIONS) // 8], self.block[int(B_COUNT) // 8] = regions.ctypes.data, len(regions)
        self.addresses[1], self.addresses[2] = data.ctypes.data, meta.ctypes.data
        self.aimed_at = regions


@dataclass(slots=True)
class Interpreted:
    """A program ready to run in the compiled loop. counts: uint64[slots, 2], executions and taken branches, or None."""

    linked: Linked
    budget: int
    needs_meta: bool
    groups: Groups
    zero_memory: int
    zero_cb: bool
    work: Workspace
    rare: RareState
    trusted: bool = False
    counts: Words | None = None
    busy: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def run(self, skbs: Skbs) -> Outcome:
        """Run over all packets, in order; a second thread waits, for there is one set of registers and stacks. Raises
        ProgramRefused for a helper without meaning in a program that has been put into a program array since the last
        run."""
        with self.busy:
            return self._run(skbs)

    def _run(self, skbs: Skbs) -> Outcome:
        count, work, groups = len(skbs), self.work, self.groups
        outcome = Outcome(np.empty(count, dtype=np.uint32), np.empty(count, dtype=np.uint8))
        meta = skbs.meta if len(skbs.meta) else work.shared_meta
        regions = work.regions
        if groups.world:
            links = self.linked.links
            regions = self.linked.table()
            if links != self.linked.links:
                self._relinked()
            groups = self.groups
            work.place(regions)
        if groups.world or work.aimed_at is not regions:
            # Without maps and helpers the loop asks for nothing but the table, and finding addresses takes time.
            work.aim(regions, skbs.data, meta, self.linked.functions)
        run_batch(
            self.linked.words, self.linked.entry, self.zero_memory, self.zero_cb, skbs.data, skbs.base,
            skbs.length, skbs.captured, skbs.head, meta, not len(skbs.meta), skbs.mac_offset, skbs.network_offset,
            skbs.delivered, regions, work.stack, work.context, work.frames, work.regs, work.addresses,
            U0 if groups.basic else None, U0 if groups.world else None,
            U0 if groups.kinds else None, U0 if groups.rings else None,
            self.rare.text_at() if groups.text else None, self.rare.timers_at() if groups.timers else None,
            self.rare.words_at() if groups.kernel else None,
            self.budget, self.counts, outcome.verdict, outcome.fault,
        )  # fmt: skip
        return outcome

    def _relinked(self) -> None:
        """A program array has changed: other programs may be there, which call other helpers."""
        _refuse_unknown(self.linked, self.trusted)
        self.groups = Groups.of(self.linked)
        self.needs_meta = self.linked.needs_meta
        self.zero_memory = max(self.zero_memory, self.linked.stack_depth)
        self.zero_cb = self.zero_cb or self.linked.touches_cb
        if self.counts is not None and len(self.counts) < len(self.linked.words):
            more = np.zeros((len(self.linked.words) - len(self.counts), 2), dtype=np.uint64)
            self.counts = np.concatenate([self.counts, more])

    def trace_records(self) -> list[TraceRecord]:
        """What bpf_trace_printk and bpf_trace_vprintk wrote since the last call."""
        return take(self.rare)


class InterpreterEngine:
    """The compiled loop; see the module."""

    name = "interpreter"

    def prepare(self, verified: Verified, env: Env, *, coverage: bool = False) -> Interpreted:
        """Pack and link the program. Raises ProgramRefused (EINVAL) for a helper that has no meaning off a kernel."""
        program = verified.program
        linked = link(verified, fuse=not coverage)
        _refuse_unknown(linked, verified.trusted)
        # The classic checks prove that scratch slots are written before they are read; nothing to clear.
        zero_memory = 0 if program.classic is not None else linked.stack_depth
        counts = np.zeros((len(linked.words), 2), dtype=np.uint64) if coverage else None
        work = Workspace(basic_helpers.initial_state(env), _shared_meta(env))
        return Interpreted(
            linked, env.budget, linked.needs_meta, Groups.of(linked), zero_memory,
            linked.touches_cb or verified.trusted, work, RareState(seed=env.seed), verified.trusted, counts,
        )  # fmt: skip


def _shared_meta(env: Env) -> NDArray[np.int64]:
    """The one row that serves all packets when no program needs their metadata."""
    row = np.zeros((1, len(COLUMN)), dtype=np.int64)
    row[0, CPU] = env.cpu
    return row


def _refuse_unknown(linked: Linked, trusted: bool) -> None:
    if trusted:
        return
    for verified in linked.admitted:
        for at, fact in verified.facts.items():
            if getattr(fact, "kind", "") == "map":
                raise ProgramRefused(
                    22, at, "reads the structure that the kernel keeps of a map, which is not there",
                    hint="write its sizes as constants, or test this program on the live kernel",
                )  # fmt: skip
        program = verified.program
        for at, name in program.kfuncs.items():
            if KFUNCS.get(name) not in RUNNABLE:
                raise ProgramRefused(
                    22, at, f"kernel function {name} {why_not_kfunc(name)}",
                    hint="replace the call, or test this program on the live kernel",
                )  # fmt: skip
        for at, insn in enumerate(program.insns):
            if insn.code == 0x85 and insn.src == 0 and insn.imm not in RUNNABLE:
                raise ProgramRefused(
                    22, at, f"helper bpf_{helper_name(insn.imm)}#{insn.imm} {why_not(insn.imm)}",
                    hint="replace the call, or test this program on the live kernel",
                )  # fmt: skip


RUNNABLE = ALL_HELPERS | basic_helpers.NUMBERS | KERNEL_FUNCTIONS

ENGINE = InterpreterEngine()
