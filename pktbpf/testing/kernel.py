"""The live kernel as a second judge of every assertion. Where it cannot be asked, Unavailable says why.

A program that looks at nothing but bytes and lengths is put on an AF_UNIX socket, which needs no privilege; any other
one on a socket of its attach profile, which needs a network namespace. Maps of the kernel's program begin as the
definition says and see the same packets in the same order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pktbpf.capture.linktypes import name_of
from pktbpf.errors import CheckFailed, KernelUnavailable, ProgramRefused
from pktbpf.kernel.rigs import Rig, open_rig
from pktbpf.parity.compare import Comparison, Session
from pktbpf.program import Program, Verified
from pktbpf.testing.captures import CapturedPacket

if TYPE_CHECKING:
    from pktbpf.testing.subject import FilterUnderTest, Judgement

_PERMISSION = (1, 13)


class KernelDiffers(CheckFailed, AssertionError):
    """The live kernel gives another verdict than pktbpf."""


class Unavailable(Exception):
    """The kernel cannot be asked about this filter or packet, and why."""


class Witness:
    """The live kernel's side of one filter. definition: the program with its maps not yet live."""

    def __init__(self, definition: Verified):
        self.definition = definition
        self._rig: Rig | None = None
        self._session: Session | None = None

    def check(self, subject: FilterUnderTest, judgement: Judgement, start: int) -> None:
        """Put the packet of a judgement to the kernel. Raises KernelDiffers, Unavailable."""
        name = rig_name(self.definition.program, subject.filter.profile.name)
        packet = judgement.packet
        if name == "unix":
            packet = self._from_byte_0(judgement)
        elif judgement.metadata:
            raise Unavailable(f"metadata was stated ({', '.join(judgement.metadata)}), which a live packet has not")
        elif start:
            raise Unavailable(f"the {name} rig takes whole frames; `start` is not 0")
        elif isinstance(packet, CapturedPacket) and packet.linktype != 1:
            raise Unavailable(f"the {name} rig takes Ethernet frames, this is {name_of(packet.linktype)}")
        result = self._ask(name, bytes(packet))
        if result.differing:
            found = result.first
            assert found is not None
            raise KernelDiffers(
                f"the live kernel disagrees on {judgement.title}: kernel {found.kernel}, pktbpf {found.ours}"
            )
        if not result.pairs:
            raise Unavailable(f"{judgement.title} reaches no such socket, or its verdict hangs on a random number")
        if bool(result.accepted) != judgement.accepted:
            said = ("rejects", "accepts")
            raise KernelDiffers(
                f"the live kernel disagrees on {judgement.title}: it {said[result.accepted]} what"
                f" {subject.name} {said[judgement.accepted]}"
            )

    def _from_byte_0(self, judgement: Judgement) -> bytes:
        packet = judgement.trace().packet
        if packet.length > packet.captured:
            raise Unavailable(f"{judgement.title} was cut short")
        return packet.buffer[packet.base : packet.base + packet.captured]

    def _ask(self, name: str, packet: bytes) -> Comparison:
        try:
            if self._session is None:
                self._rig = open_rig(name)
                self._session = Session(self.definition, self._rig).__enter__()
            return self._session.run([packet])
        except KernelUnavailable as error:
            raise Unavailable(str(error)) from None
        except ProgramRefused as refusal:
            self._session = None
            if refusal.errno in _PERMISSION:
                raise Unavailable(f"the kernel does not let this user load the program: {refusal}") from None
            raise KernelDiffers(f"the live kernel refuses the filter that pktbpf admits: {refusal}") from None

    def close(self) -> None:
        """Leave nothing behind."""
        if self._session is not None:
            self._session.__exit__(None, None, None)
        if self._rig is not None:
            self._rig.close()


def rig_name(program: Program, profile: str) -> str:
    """The rig on which a program of an attach profile is asked about."""
    from pktbpf.engine.linker import link

    if program.maps:
        return "unix" if profile == "unix" else profile
    negative = any(insn.code & 0xE7 in (0x20, 0x40) and insn.imm < 0 for insn in program.insns)
    return profile if negative or link(Verified(program)).needs_meta else "unix"
