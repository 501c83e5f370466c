"""Ours against the live kernel: the same program over the same packets, verdict by verdict.

A rig shows what the kernel keeps of each packet and what its program saw; an engine runs the same program over exactly
those packets and metadata, and the trim rule of the attach profile gives the bytes it would keep. A pair is equal when
both accept or both drop, and keep the same number of bytes.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pktbpf import engine as engines
from pktbpf.engine.base import Env, Fault, Outcome, profile
from pktbpf.errors import ProgramRefused
from pktbpf.filter import verify
from pktbpf.instance import Instance
from pktbpf.kernel.loading import Loaded
from pktbpf.kernel.maps import possible_cpus
from pktbpf.kernel.observed import Observed
from pktbpf.kernel.rigs import Rig
from pktbpf.objfile.kernel_btf import running_kernel
from pktbpf.parity.consumers import Consumers
from pktbpf.parity.contents import Contents, compare_maps
from pktbpf.parity.variants import variants
from pktbpf.program import INTERNAL_NAMES, Program, Verified


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
    """pairs: program-packet pairs compared. accepted: those that the kernel took. undelivered: packets that no
    socket of the rig gets. unpredictable: packets whose verdict hangs on the time, on a random number or on how the
    kernel laid them out in memory; neither is compared.
    differing: 0-based numbers of the packets with different verdicts. first: the first of them in full. maps: contents
    of the maps after the last packet, where they were asked for."""

    pairs: int = 0
    accepted: int = 0
    undelivered: int = 0
    unpredictable: int = 0
    differing: tuple[int, ...] = ()
    first: Difference | None = None
    maps: tuple[Contents, ...] = ()

    @property
    def equal(self) -> int:
        """Pairs with the same verdict."""
        return self.pairs - len(self.differing)

    @property
    def packets(self) -> int:
        """Packets given, compared or not."""
        return self.pairs + self.undelivered + self.unpredictable

    def __add__(self, other: Comparison) -> Comparison:
        """This one, then `other` over the packets that follow."""
        moved = None if other.first is None else replace(other.first, index=other.first.index + self.packets)
        return Comparison(
            self.pairs + other.pairs,
            self.accepted + other.accepted,
            self.undelivered + other.undelivered,
            self.unpredictable + other.unpredictable,
            self.differing + tuple(row + self.packets for row in other.differing),
            self.first or moved,
            other.maps or self.maps,
        )


class Session:
    """A program on the rig's sockets and, made ready by an engine, on our side. A context manager.

    Attached as the classic filter that it comes from; with `extended`, or without one, loaded by bpf(2). Entering
    raises ProgramRefused with the kernel's errno, or KernelUnavailable.
    """

    def __init__(
        self, verified: Verified, rig: Rig, *, engine: str = "interpreter", extended: bool = False,
        env: Env | None = None,
    ):  # fmt: skip
        self.rig = rig
        self.program = verified.program
        self._extended = extended or verified.program.classic is None
        self._wants_linear = uses_attributes(self.program)
        self._variants = variants(self.program, env or Env())
        cpus = possible_cpus() if self.program.maps or self.program.kvars else 1
        admit = partial(verify, kernel_btf=running_kernel())
        where = replace(env or Env(), kernel_btf=running_kernel())
        instances = [Instance(admit=admit, cpus=cpus, env=where) for _ in self._variants]
        bound = [instance.bind(verified) for instance in instances]
        self._maps = [instance.maps for instance in instances]
        self._runners = [
            engines.get(engine).prepare(one, variant.env) for one, variant in zip(bound, self._variants, strict=True)
        ]
        self._loaded = Loaded()
        self._consumers = Consumers(self._maps, self._loaded)
        self._packets = 0

    def __enter__(self) -> Self:
        try:
            number, log = self._attach()
            if number:
                raise ProgramRefused(number, None, "the live kernel refuses the program", log=log)
            self._consumers.open()
        except BaseException:
            self._close()
            raise
        return self

    def _attach(self) -> tuple[int, str]:
        if not self._extended and self.program.classic is not None:
            return self.rig.attach_classic(self.program.classic.to_bytes()), ""
        if self.program.internal_calls:
            raise ProgramRefused(
                errno.EINVAL, self.program.internal_calls[0],
                "calls a function that only the kernel's own translation can call",
                hint="attach the classic filter instead",
            )  # fmt: skip
        try:
            return self.rig.attach_extended(self._loaded.program(self.program)), ""
        except OSError as refusal:  # LoadRefused, or a map that cannot be created
            return refusal.errno or errno.EINVAL, getattr(refusal, "log", "")

    def run(self, packets: Sequence[bytes]) -> Comparison:
        """Both sides over the next packets: payloads for the unix rig, Ethernet frames for the others."""
        step = self._consumers.step or max(len(packets), 1)
        parts = (self._run(packets[at : at + step]) for at in range(0, len(packets), step))
        return sum(parts, Comparison())

    def _run(self, packets: Sequence[bytes]) -> Comparison:
        observed = self.rig.run(packets)
        outcomes = [
            runner.run(variant.skbs(observed.skbs, self._packets))
            for runner, variant in zip(self._runners, self._variants, strict=True)
        ]
        self._packets += len(packets)
        self._consumers.drain()
        first = outcomes[0]
        steady = np.ones(len(observed), dtype=np.bool_)
        for outcome in outcomes[1:]:
            steady &= outcome.verdict == first.verdict
        if self._wants_linear:
            steady &= observed.skbs.length <= self.rig.linear
        kept = profile(self.rig.profile).kept(first.verdict, observed.skbs.length)
        return judge(observed, first, kept, steady)

    def contents(self) -> Comparison:
        """No packets, but both sides' maps as they are now."""
        if not self._maps[0]:
            return Comparison()
        return Comparison(maps=compare_maps(self._maps, self._loaded, self._consumers))

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        self.rig.detach()
        self._consumers.close()
        self._loaded.close()


def uses_attributes(program: Program) -> bool:
    """Whether the program searches netlink attributes, which the kernel does in packets laid out in one piece only."""
    names = (INTERNAL_NAMES.get(program.insns[slot].imm, "") for slot in program.internal_calls)
    return any(name.startswith("skb_get_nlattr") for name in names)


def compare(
    verified: Verified, packets: Sequence[bytes], rig: Rig, *, engine: str = "interpreter", extended: bool = False,
    env: Env | None = None,
) -> Comparison:  # fmt: skip
    """Run `verified` over `packets` (payloads for the unix rig, Ethernet frames for the others) on both sides.

    extended: put the translation of a classic program into the kernel instead of the program itself. Raises
    ProgramRefused when the kernel refuses the program, KernelUnavailable when it cannot be asked.
    """
    with Session(verified, rig, engine=engine, extended=extended, env=env) as session:
        return session.run(packets)


def judge(
    observed: Observed, outcome: Outcome, kept: NDArray[np.int64], steady: NDArray[np.bool_] | None = None
) -> Comparison:
    """Both sides' columns, pair by pair. kept: int64[n], what our side keeps. steady: bool[n], False where our verdict
    depends on the time or a random number."""
    steady = np.ones(len(observed), dtype=np.bool_) if steady is None else steady
    counted = observed.delivered & steady
    accepted = outcome.verdict != 0
    unequal = (accepted != observed.accepted) | (kept != observed.kept) | (outcome.fault != Fault.NONE)
    rows = np.flatnonzero(counted & unequal)
    return Comparison(
        pairs=int(counted.sum()),
        accepted=int((counted & observed.accepted).sum()),
        undelivered=int((~observed.delivered).sum()),
        unpredictable=int((observed.delivered & ~steady).sum()),
        differing=tuple(int(row) for row in rows),
        first=_difference(observed, outcome, kept, int(rows[0])) if len(rows) else None,
    )


def _difference(observed: Observed, outcome: Outcome, kept: NDArray[np.int64], row: int) -> Difference:
    skbs = observed.skbs
    base, head = int(skbs.base[row]), int(skbs.head[row])
    fault = Fault(int(outcome.fault[row]))
    value = int(outcome.verdict[row])
    return Difference(
        index=row,
        ours=Verdict(bool(value), int(kept[row]), "" if fault is Fault.NONE else fault.name.lower()),
        kernel=Verdict(bool(observed.accepted[row]), int(observed.kept[row])),
        value=value,
        packet=skbs.data[base : base + int(skbs.captured[row])].tobytes(),
        before=skbs.data[base - head : base].tobytes(),
    )
