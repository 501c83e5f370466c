"""Traces of packets: of a Filter and bytes, or of packet N of a capture; what the commands and the plugin call.

A program with maps or random numbers sees the packets before N first, so that both are as they would be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pktbpf import loader
from pktbpf.capture.open import open_capture
from pktbpf.engine.base import AttachProfile, Env, Fault, Layer, Skbs, profile
from pktbpf.engine.basic_helpers import PRANDOM, S_RANDOM, STATE_SIZE, initial_state
from pktbpf.engine.interpreter import ENGINE, Interpreted
from pktbpf.engine.reference import Random
from pktbpf.engine.reference_packet import Packet
from pktbpf.engine.skb import view
from pktbpf.errors import UsageError
from pktbpf.explain.classic_trace import trace_classic
from pktbpf.explain.core import Core, one_row
from pktbpf.explain.extended_trace import LIMIT, trace_extended
from pktbpf.explain.steps import Trace, dissection_of
from pktbpf.filter import Filter, verify
from pktbpf.instance import Instance
from pktbpf.maps.face import Map
from pktbpf.program import ClassicProgram, Program, Verified


def trace_row(
    verified: Verified, socket: AttachProfile, env: Env, skbs: Skbs, row: int = 0, *, linktype: int | None = None,
    limit: int = LIMIT, state: NDArray[np.uint64] | None = None,
) -> Trace:  # fmt: skip
    """The trace of one packet as a socket sees it. linktype: DLT at the start of its frame, None for bytes that begin
    at the profile's byte 0. state: the helpers' (random numbers) before the packet, default as the environment seeds
    it, see state_of. Maps of the program must be live; they are left as they were."""
    program = verified.program
    packet = Packet.of(skbs, row)
    trace = Trace(program, packet, dissection_of(packet, socket, linktype), socket, programs=[program])
    if not skbs.delivered[row]:
        trace.fault = Fault.UNDELIVERED
        return trace
    if program.classic is not None:
        source = _source_line(program.classic)
        begun = int(initial_state(env)[S_RANDOM] if state is None else state[S_RANDOM])
        trace_classic(trace, lambda: Random(begun), source)
    else:
        trace_extended(trace, Core(verified, env, one_row(skbs, row), state), limit)
    kept = socket.kept(np.array([trace.verdict], dtype=np.uint32), np.array([packet.length], dtype=np.int64))
    trace.kept = int(kept[0])
    return trace


def state_of(runner: Any) -> NDArray[np.uint64]:
    """The helpers' state of an engine's runner, uint64[STATE_SIZE], as the next packet will find it."""
    runner = getattr(runner, "inner", runner)  # a counting one
    if hasattr(runner, "work"):
        copy: NDArray[np.uint64] = runner.work.state.copy()
        return copy
    state = np.zeros(STATE_SIZE, dtype=np.uint64)
    state[S_RANDOM] = runner.random.state
    return state


def stateful(verified: Verified) -> bool:
    """Whether a packet's verdict may depend on those before it: maps, random numbers."""
    program = verified.program
    return bool(program.maps) or any(i.code == 0x85 and not i.src and i.imm == PRANDOM for i in program.insns)


def _source_line(classic: ClassicProgram) -> Any:
    return lambda number: f"line {classic.lines[number]}" if number in classic.lines else ""


def trace_filter(
    filter: Filter, packet: bytes, wire_len: int | None = None, *, start: int = 0, linktype: int | None = None,
    limit: int = LIMIT, state: NDArray[np.uint64] | None = None, **metadata: Any,
) -> Trace:  # fmt: skip
    """The trace of what `filter.run(packet, ...)` would do next (or did, with the `state` before it); maps of the
    filter are left as they were."""
    skbs = filter._skbs([packet], wire_len, start, metadata)
    if linktype is None and (start or filter.profile.name == "packet"):
        linktype = _made_for(filter.verified) or 1
    state = state_of(filter.runner) if state is None else state
    return trace_row(filter.verified, filter.profile, filter.env, skbs, linktype=linktype, limit=limit, state=state)


def _made_for(verified: Verified) -> int | None:
    return verified.program.classic.linktype if verified.program.classic is not None else None


class Tracer:
    """A filter over the packets of a capture, one trace at a time. attach: profile name. env: see Env.

    argument: what --filter takes, or a Program; an expression is compiled for the link type of each packet. maps: live
    maps to begin with, by name; the others are made.
    """

    def __init__(
        self, capture: Any, argument: str | Program, *, attach: str = "packet", env: Env | None = None,
        optimize: bool = True, program: str | None = None, limit: int = LIMIT, maps: Mapping[str, Map] | None = None,
    ):  # fmt: skip
        self.capture, self.argument = capture, argument
        self.profile, self.env, self.optimize, self.limit = profile(attach), env or Env(), optimize, limit
        self._program = program
        self._expression = isinstance(argument, str) and loader.is_expression(argument)
        self._prepared: dict[int | None, Verified] = {}
        self._runners: dict[int, Interpreted] = {}
        self._verify = partial(verify, kernel_btf=self.env.kernel_btf)
        self.instance = Instance(maps, admit=self._verify, cpus=self.env.cpu + 1, env=self.env)

    def program(self, linktype: int) -> Verified:
        """The program for packets of a link type, its maps live."""
        seen = linktype if self.profile.layer is Layer.LINK else 12
        key = seen if self._expression else None
        if key not in self._prepared:
            live = self._expression and self.env.strip_vlan and seen == 1  # Ethernet frames lose their tag
            loaded = self.argument if isinstance(self.argument, Program) else loader.load_filter_argument(
                self.argument, linktype=seen, optimize=self.optimize, program=self._program,
                savefile=self._expression and not live, live=live,
            )  # fmt: skip
            self._prepared[key] = self.instance.bind(self._verify(loaded))
        return self._prepared[key]

    def maps(self) -> dict[str, Map]:
        """The live maps by name, made now; an expression, which each link type compiles anew, has none."""
        if not self._expression:
            self.program(1)
        return {name: one for name, one in self.instance.maps.items() if name}

    def traces(self, wanted: set[int] | None = None) -> Iterator[tuple[int, Trace]]:
        """(number, trace) of the wanted packets, all for None; the packets between run as well where a program has
        maps."""
        last = max(wanted) if wanted else None
        with open_capture(self.capture) as source:
            for batch in source:
                with view(batch, self.profile, self.env, meta=True) as skbs:
                    for row in range(len(batch)):
                        number = batch.first + row
                        if last is not None and number > last:
                            return
                        chosen = wanted is None or number in wanted
                        verified = self.program(batch.linktype(row))
                        if chosen:
                            yield number, trace_row(
                                verified, self.profile, self.env, skbs, row, linktype=batch.linktype(row),
                                limit=self.limit, state=self._state(verified),
                            )  # fmt: skip
                        if stateful(verified) and (last is None or number < last):
                            self._advance(verified, skbs, row)

    def _advance(self, verified: Verified, skbs: Skbs, row: int) -> None:
        """Let a program with a memory see a packet for good."""
        if id(verified) not in self._runners:
            self._runners[id(verified)] = ENGINE.prepare(verified, self.env)
        self._runners[id(verified)].run(one_row(skbs, row))

    def _state(self, verified: Verified) -> NDArray[np.uint64] | None:
        runner = self._runners.get(id(verified))
        return None if runner is None else state_of(runner)

    def some(self, wanted: Iterable[int]) -> Iterator[tuple[int, Trace]]:
        """As `traces`; UsageError at the end where the capture has fewer packets."""
        numbers = set(wanted)
        for number, trace in self.traces(numbers):
            numbers.discard(number)
            yield number, trace
        if numbers:
            raise UsageError(f"{self.capture}: there is no packet {min(numbers)}")

    def one(self, number: int) -> Trace:
        """The trace of packet `number`, from 1. UsageError where the capture has fewer."""
        return next(trace for _, trace in self.some({number}))
