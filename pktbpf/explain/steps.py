"""The values of a trace: Step, Read, Trace. What the tracers make and what why, the printers and the debugger read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from pktbpf.engine.base import AttachProfile, Fault, Layer
from pktbpf.engine.reference_packet import Packet
from pktbpf.explain.fields import Dissection, dissect
from pktbpf.explain.values import Condition, Expr, constant
from pktbpf.maps.face import Map
from pktbpf.program import Program


@dataclass(frozen=True, slots=True)
class Read:
    """Something that an instruction read. name: as the dissector or the kernel calls it. at: index in the frame of
    packet bytes, -1 for metadata. size in bytes. text: "ip.proto = 6"."""

    name: str
    at: int
    size: int
    value: int
    text: str


@dataclass(frozen=True, slots=True)
class Step:
    """One executed instruction.

    number: from 1. slot: number of the instruction in its program. program: index in Trace.programs. before, after:
    registers by name. stack: the program's stack before it (extended programs). condition, taken, target: of a
    branch; target is the instruction that follows. note: what else it did. line: source line, "" if unknown.
    """

    number: int
    slot: int
    text: str
    before: Mapping[str, int]
    after: Mapping[str, int]
    program: int = 0
    reads: tuple[Read, ...] = ()
    condition: Condition | None = None
    taken: bool | None = None
    target: int | None = None
    note: str = ""
    line: str = ""
    stack: bytes = b""

    @property
    def changed(self) -> dict[str, int]:
        """Registers that the instruction gave another value."""
        return {name: value for name, value in self.after.items() if self.before.get(name) != value}


@dataclass(slots=True)
class Trace:
    """A whole run over one packet.

    steps: executed instructions in order. verdict: u32 return value. kept, length: bytes kept and skb->len. ending: why
    the run ended other than by a return, "" for a return. omitted: steps run but not recorded. show: register value ->
    text. returned: where the verdict came from, None where the run did not end by a return or was not recorded to its
    end. rerun(step) -> verdict with the branch of that step sent the other way, None where it cannot be told. maps:
    the program's by name; inside world(n) they are as after n steps.
    """

    program: Program
    packet: Packet
    dissection: Dissection
    profile: AttachProfile
    steps: list[Step] = field(default_factory=list)
    programs: list[Program] = field(default_factory=list)
    verdict: int = 0
    fault: Fault = Fault.NONE
    kept: int = 0
    ending: str = ""
    omitted: int = 0
    returned: Expr | None = None
    show: Callable[[str, int], str] = lambda name, value: f"{value:#x}"
    rerun: Callable[[Step], int | None] = lambda step: None
    maps: Mapping[str, Map] = field(default_factory=dict)
    world: Callable[[int], AbstractContextManager[None]] = lambda steps: nullcontext()

    @property
    def accepted(self) -> bool:
        """Whether the packet is delivered."""
        return self.verdict != 0

    @property
    def computed(self) -> bool:
        """Whether the verdict is no constant of the program, so that its value decided too."""
        return self.returned is not None and not constant(self.returned)

    @property
    def classic(self) -> bool:
        """Whether instruction numbers are those of a classic program."""
        return self.program.classic is not None

    @property
    def verdict_text(self) -> str:
        """ "accepted, 60 of 60 bytes kept (returned 262144)", "rejected (returned 0)", "rejected (indeterminate)"."""
        if self.accepted:
            return f"accepted, {self.kept} of {self.packet.length} bytes kept (returned {self.verdict:#x})"
        if self.fault is not Fault.NONE:
            return f"rejected ({self.fault.name.lower()})"
        return f"rejected ({self.ending or 'returned 0'})"

    def branches(self) -> list[Step]:
        """The steps that decided which way to go, in order."""
        return [step for step in self.steps if step.condition is not None]


def dissection_of(packet: Packet, profile: AttachProfile, linktype: int | None) -> Dissection:
    """Names for the packet of a run. linktype: what its frame begins with; None for bytes that begin at byte 0."""
    if linktype is not None:
        return dissect(packet.buffer, linktype)
    first = {Layer.LINK: "ether", Layer.NETWORK: "raw", Layer.IP: "raw", Layer.UDP: "udp", Layer.PAYLOAD: "payload"}
    return dissect(packet.buffer, first[profile.layer])
