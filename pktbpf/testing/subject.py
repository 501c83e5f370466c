"""FilterUnderTest: a filter that answers with evidence. `assert f.accepts(pkt)` fails with the packet dissected, the
path taken and the instruction that decided, because what accepts() returns can explain itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pktbpf.capture.batch import Batch, batch_of
from pktbpf.engine.base import Env, Fault, Skbs
from pktbpf.engine.skb import view
from pktbpf.explain.run import state_of, stateful
from pktbpf.filter import Filter
from pktbpf.maps.face import Map
from pktbpf.testing.captures import CapturedPacket, CaptureUnderTest, as_packet

if TYPE_CHECKING:
    from pktbpf.explain.steps import Trace
    from pktbpf.testing.kernel import Witness

_CHUNK = 4096  # packets of one run
_SNAPSHOT = 64 << 20  # bytes of maps that are kept for an explanation


class Judgement:
    """What a filter said to one packet, true where that is what was asked for.

    accepted, verdict (u32 return value), fault, kept and length (bytes) as found; wanted: True for accepts(), False for
    rejects(), None for kept(). `explain()` has the lines that a failed assertion shows.
    """

    last: ClassVar[Judgement | None] = None  # the latest one that was looked at, for assertions without rewriting

    def __init__(
        self, subject: FilterUnderTest, packet: bytes, *, verdict: int, fault: Fault, kept: int, length: int,
        wanted: bool | None, again: tuple[Any, ...],
    ):  # fmt: skip
        self.subject, self.packet, self.wanted = subject, packet, wanted
        self.verdict, self.fault, self.kept, self.length = verdict, fault, kept, length
        self._again = again

    @property
    def accepted(self) -> bool:
        """Whether the socket gets the packet."""
        return self.verdict != 0

    @property
    def metadata(self) -> dict[str, Any]:
        """Metadata that the test stated."""
        stated: dict[str, Any] = self._again[3]
        return stated

    def __bool__(self) -> bool:
        Judgement.last = self
        return self.accepted == (self.wanted is not False)

    def __eq__(self, other: object) -> bool:
        return bool(self) == other if isinstance(other, bool | Judgement) else NotImplemented

    def __hash__(self) -> int:
        return hash(bool(self))

    def trace(self) -> Trace:
        """The run once more, step by step, with maps as they were before the packet."""
        return self.subject._trace(*self._again)

    @property
    def title(self) -> str:
        """ "packet 5 of pcaps/web.pcap", or the packet's length."""
        if isinstance(self.packet, CapturedPacket):
            return f"packet {self.packet.number} of {self.packet.capture}, {len(self.packet)} bytes"
        return f"packet of {len(self.packet)} bytes"

    def explain(self) -> list[str]:
        """The packet dissected, the verdict with its reasons, the path, and the instruction that decided."""
        from pktbpf.explain.render import explanation

        return [f"{self.title}:", *explanation(self.trace(), self.subject.name)]

    def __repr__(self) -> str:
        from pktbpf.explain.why import deciding_line

        said = "accepted" if self.accepted else "rejected"
        return f"<{said} by {deciding_line(self.trace())}>"


class Kept(int):
    """Bytes kept, with the judgement behind the number."""

    judgement: Judgement

    @classmethod
    def of(cls, judgement: Judgement) -> Kept:
        """From a judgement."""
        made = cls(judgement.kept)
        made.judgement = judgement
        return made


class FilterUnderTest:
    """A filter with a name, on an engine and an attach profile. Other attributes are those of `pktbpf.Filter`.

    witness: puts every judgement to the live kernel too, see pktbpf.testing.kernel. Packets of captures are whole
    frames, in which the profile finds byte 0; other packets begin at byte 0 (`start` says where else it is).
    """

    def __init__(
        self, program: Any, *, name: str | None = None, engine: Any = "interpreter", attach: str = "packet",
        env: Env | None = None, maps: Mapping[str, Map] | None = None, witness: Witness | None = None,
    ):  # fmt: skip
        self.filter = Filter(program, engine=engine, attach=attach, env=env, maps=maps)
        self.name = name or _name(program)
        self.witness = witness

    def __getattr__(self, name: str) -> Any:
        if name == "filter":
            raise AttributeError(name)
        return getattr(self.filter, name)

    def __repr__(self) -> str:
        return f"<filter {self.name}>"

    def accepts(self, packet: Any, wire_len: int | None = None, *, start: int = 0, **metadata: Any) -> Judgement:
        """True where the socket gets the packet; metadata as for Filter.run."""
        return self._judge(packet, wire_len, start, metadata, True)

    def rejects(self, packet: Any, wire_len: int | None = None, *, start: int = 0, **metadata: Any) -> Judgement:
        """True where the packet is dropped."""
        return self._judge(packet, wire_len, start, metadata, False)

    def kept(self, packet: Any, wire_len: int | None = None, *, start: int = 0, **metadata: Any) -> Kept:
        """Bytes of the packet that the socket keeps, 0 for a dropped one; an int."""
        return Kept.of(self._judge(packet, wire_len, start, metadata, None))

    def run(self, packet: Any, wire_len: int | None = None, *, start: int = 0, **metadata: Any) -> int:
        """The program's u32 return value."""
        return self._judge(packet, wire_len, start, metadata, None).verdict

    def accepted(self, packets: CaptureUnderTest | Iterable[Any]) -> list[int]:
        """Numbers of the accepted packets, from 1, after running all of them in order."""
        return [n for n, judgement in enumerate(self.judge_all(packets), 1) if judgement.accepted]

    def judge_all(self, packets: Iterable[Any]) -> Iterator[Judgement]:
        """Judgements without an expectation, in order; captured packets of a filter without memory run in batches."""
        batched = self.witness is None and not stateful(self.filter.verified)
        for linktype, group in itertools.groupby(packets, lambda packet: getattr(packet, "linktype", None)):
            if linktype is None or not batched:
                for packet in group:
                    yield self._judge(packet, None, 0, {}, None)
                continue
            while chunk := list(itertools.islice(group, _CHUNK)):
                yield from self._judge_chunk(chunk)

    def _judge_chunk(self, packets: list[CapturedPacket]) -> list[Judgement]:
        """Captured packets of one link type in one run."""
        state = state_of(self.filter.runner)
        with view(_batch(packets), self.filter.profile, self.filter.env, meta=True) as skbs:
            outcome = self.filter.runner.run(skbs)
            kept = self.filter.profile.kept(outcome.verdict, skbs.length)
            return [
                Judgement(
                    self, packet, verdict=int(outcome.verdict[n]), fault=Fault(int(outcome.fault[n])),
                    kept=int(kept[n]), length=int(skbs.length[n]), wanted=None,
                    again=(packet, None, 0, {}, state, None),
                )
                for n, packet in enumerate(packets)
            ]  # fmt: skip

    def judge(self, packet: Any) -> Judgement:
        """The judgement without an expectation; true where the packet is accepted."""
        return self._judge(packet, None, 0, {}, None)

    def _judge(
        self, packet: Any, wire_len: int | None, start: int, metadata: dict[str, Any], wanted: bool | None
    ) -> Judgement:
        data = as_packet(packet)
        again = (data, wire_len, start, metadata, state_of(self.filter.runner), self._remember())
        if isinstance(data, CapturedPacket) and not start:
            with view(_batch([data], wire_len), self.filter.profile, self._env(metadata), meta=True) as skbs:
                found = self._found(data, skbs, wanted, again)
        else:
            skbs = self.filter._skbs([data], wire_len, start, metadata)
            found = self._found(data, skbs, wanted, again)
        if self.witness is not None:
            self.witness.check(self, found, start)
        return found

    def _found(self, data: bytes, skbs: Skbs, wanted: bool | None, again: tuple[Any, ...]) -> Judgement:
        outcome = self.filter.runner.run(skbs)
        kept = self.filter.profile.kept(outcome.verdict, skbs.length)
        return Judgement(
            self, data, verdict=int(outcome.verdict[0]), fault=Fault(int(outcome.fault[0])), kept=int(kept[0]),
            length=int(skbs.length[0]), wanted=wanted, again=again,
        )  # fmt: skip

    def _env(self, metadata: dict[str, Any]) -> Env:
        from pktbpf.replayer.api import environment

        return environment(self.filter.env, metadata)

    # --- explanations ------------------------------------------------------------------------------------------------

    def _blocks(self) -> list[Any]:
        return [block for one in self.filter.maps.values() for block in one.storage.blocks]

    def _remember(self) -> list[Any] | None:
        """Copies of what the maps hold; None where that is too much for a mere message."""
        blocks = self._blocks()
        if sum(block.nbytes for block in blocks) > _SNAPSHOT:
            return None
        return [block.copy() for block in blocks]

    def _trace(
        self, data: bytes, wire_len: int | None, start: int, metadata: dict[str, Any], state: Any,
        before: list[Any] | None,
    ) -> Trace:  # fmt: skip
        from pktbpf.explain.run import trace_filter, trace_row

        after = self._remember() if before is not None else None
        self._put(before)
        try:
            if isinstance(data, CapturedPacket) and not start:
                env = self._env(metadata)
                with view(_batch([data], wire_len), self.filter.profile, env, meta=True) as skbs:
                    return trace_row(
                        self.filter.verified, self.filter.profile, env, skbs, linktype=data.linktype, state=state
                    )
            return trace_filter(self.filter, data, wire_len, start=start, state=state, **metadata)
        finally:
            self._put(after)

    def _put(self, copies: list[Any] | None) -> None:
        if copies is not None:
            for block, copy in zip(self._blocks(), copies, strict=True):
                np.copyto(block, copy)


def _batch(packets: list[CapturedPacket], wire_len: int | None = None) -> Batch:
    return batch_of(
        packets, linktype=packets[0].linktype, wirelens=[p.wirelen if wire_len is None else wire_len for p in packets],
        timestamps=[p.timestamp for p in packets],
    )  # fmt: skip


def _name(program: Any) -> str:
    if isinstance(program, Path):
        return str(program)
    if isinstance(program, str) and "\n" not in program:
        return program
    return str(getattr(program, "origin", "") or getattr(program, "name", "")) or "the filter"
