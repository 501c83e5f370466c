"""Ours against the live kernel: the same program over the same packets, verdict by verdict.

A rig shows what the kernel keeps of each packet and what its program saw; an engine runs the same program over exactly
those packets and metadata, and the trim rule of the attach profile gives the bytes it would keep. A pair is equal when
both accept or both drop, and keep the same number of bytes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pktbpf import engine as engines
from pktbpf.engine.base import Env, Fault, Skbs, profile
from pktbpf.errors import KernelUnavailable, ProgramRefused
from pktbpf.kernel import syscall
from pktbpf.kernel.observed import Observed
from pktbpf.kernel.rigs import Rig
from pktbpf.program import Program, Verified


@dataclass(frozen=True, slots=True)
class Verdict:
    """accepted, and how many bytes were kept (0 for a dropped or an empty packet). fault: ours only."""

    accepted: bool
    kept: int
    fault: str = ""

    def __str__(self) -> str:
        if self.fault:
            return f"dropped ({self.fault})"
        return f"accepted, {self.kept} bytes kept" if self.accepted else "dropped"


@dataclass(frozen=True, slots=True)
class Difference:
    """A packet on which the two disagree. index: 0-based place among the packets given. value: our u32 return value.
    packet: the bytes from byte 0 on, as the program saw them; before: those in front of byte 0."""

    index: int
    ours: Verdict
    kernel: Verdict
    value: int
    packet: bytes
    before: bytes = b""


@dataclass(frozen=True, slots=True)
class Comparison:
    """pairs: program-packet pairs compared. undelivered: packets that no socket of the rig gets, not compared.
    differing: 0-based numbers of the packets with different verdicts. first: the first of them in full."""

    pairs: int
    undelivered: int
    differing: tuple[int, ...] = ()
    first: Difference | None = None
    accepted: int = 0
    details: tuple[Difference, ...] = field(default=(), compare=False)

    @property
    def equal(self) -> int:
        """Pairs with the same verdict."""
        return self.pairs - len(self.differing)


@contextlib.contextmanager
def attached(rig: Rig, program: Program, *, extended: bool = False) -> Iterator[None]:
    """`program` on the rig's sockets: as the classic filter it comes from, or (`extended`, or without one) through
    bpf(2). Raises ProgramRefused with the kernel's errno, or KernelUnavailable."""
    if program.classic is not None and not extended:
        number = rig.attach_classic(program.classic.to_bytes())
        if number:
            raise ProgramRefused(number, None, "the live kernel refuses to attach the filter")
        yield
        return
    if program.internal_calls:
        raise ProgramRefused(
            22, program.internal_calls[0], "calls a function that only the kernel's own translation can call",
            hint="attach the classic filter instead",
        )  # fmt: skip
    try:
        fd = syscall.load_program(program.to_bytes(), license=program.license)
    except syscall.LoadRefused as refusal:
        raise ProgramRefused(refusal.errno or 22, None, str(refusal), log=refusal.log) from None
    try:
        number = rig.attach_extended(fd)
        if number:
            raise KernelUnavailable(number, "SO_ATTACH_BPF")
        yield
        rig.detach()
    finally:
        os.close(fd)


def compare(
    verified: Verified, packets: Sequence[bytes], rig: Rig, *, engine: str = "interpreter", extended: bool = False,
    env: Env | None = None,
) -> Comparison:  # fmt: skip
    """Run `verified` over `packets` (payloads for the unix rig, Ethernet frames for the others) on both sides.

    extended: put the translation of a classic program into the kernel instead of the program itself. Raises
    ProgramRefused when the kernel refuses the program, KernelUnavailable when it cannot be asked.
    """
    with attached(rig, verified.program, extended=extended):
        observed = rig.run(packets)
    runner = engines.get(engine).prepare(verified, env or Env())
    return judge(observed, *ours(runner.run(observed.skbs), observed.skbs, rig.profile))


def ours(
    outcome: engines.base.Outcome, skbs: Skbs, profile_name: str
) -> tuple[NDArray[np.uint32], NDArray[np.uint8], NDArray[np.int64]]:
    """(verdict, fault, kept) columns of our side under the trim rule of a profile."""
    return outcome.verdict, outcome.fault, profile(profile_name).kept(outcome.verdict, skbs.length)


def judge(
    observed: Observed, verdict: NDArray[np.uint32], fault: NDArray[np.uint8], kept: NDArray[np.int64]
) -> Comparison:
    """Both sides' columns, pair by pair."""
    accepted = verdict != 0
    differs = observed.delivered & ((accepted != observed.accepted) | (kept != observed.kept) | (fault != Fault.NONE))
    rows = np.flatnonzero(differs)
    return Comparison(
        pairs=int(observed.delivered.sum()),
        undelivered=int((~observed.delivered).sum()),
        differing=tuple(int(row) for row in rows),
        first=_difference(observed, verdict, fault, kept, int(rows[0])) if len(rows) else None,
        accepted=int(observed.accepted.sum()),
    )


def _difference(
    observed: Observed, verdict: NDArray[np.uint32], fault: NDArray[np.uint8], kept: NDArray[np.int64], row: int
) -> Difference:
    skbs = observed.skbs
    base, head = int(skbs.base[row]), int(skbs.head[row])
    reason = Fault(int(fault[row]))
    return Difference(
        index=row,
        ours=Verdict(bool(verdict[row]), int(kept[row]), "" if reason is Fault.NONE else reason.name.lower()),
        kernel=Verdict(bool(observed.accepted[row]), int(observed.kept[row])),
        value=int(verdict[row]),
        packet=skbs.data[base : base + int(skbs.captured[row])].tobytes(),
        before=skbs.data[base - head : base].tobytes(),
    )
