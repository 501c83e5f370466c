"""A capture through the live kernel and ours, packet by packet, and random programs through both.

An expression is compiled anew for each link type of the capture. Rigs other than `unix` take Ethernet frames only; a
packet that the capture cut short is given to both sides as if it were whole.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pktbpf import loader
from pktbpf.capture import linktypes
from pktbpf.capture.batch import Batch
from pktbpf.capture.open import open_capture
from pktbpf.engine.base import Env
from pktbpf.errors import CheckFailed, LinkTypeError, ProgramRefused, errno_name
from pktbpf.filter import verify
from pktbpf.kernel.loading import Loaded
from pktbpf.kernel.rigs import Rig
from pktbpf.objfile.kernel_btf import running_kernel, running_symbols
from pktbpf.parity.admission import Disagreement, disagreements
from pktbpf.parity.compare import Comparison, Session, compare
from pktbpf.parity.packets import PacketMaker
from pktbpf.parity.programs import ProgramMaker
from pktbpf.program import ClassicProgram, Program, Verified

_ETHERNET = 1
_CHUNK = 1024
_PACKETS_PER_PROGRAM = 25


class AdmissionDiffers(CheckFailed):
    """One side admits the program, the other refuses it, or with another errno. Both are errnos, 0 for admitted."""

    def __init__(self, ours: int, kernel: int, reason: str):
        self.ours = ours
        self.kernel = kernel
        sides = [f"refuses the program ({errno_name(n)})" if n else "admits the program" for n in (kernel, ours)]
        super().__init__(f"the live kernel {sides[0]}, pktbpf {sides[1]}" + (f": {reason}" if reason else ""))


def replay_capture(
    capture: str, argument: str | Program, rig: Rig, *, engine: str = "interpreter", extended: bool = False,
    count: int | None = None, optimize: bool = True, name: str | None = None, env: Env | None = None,
) -> Iterator[Comparison]:  # fmt: skip
    """The comparisons over a capture, chunk by chunk, in order, then that of the maps; their sum is the whole.

    argument: a filter of the command line, or a program. count: stop after so many packets. name: which program of an
    object. env: what our side runs in; the rig says what the packets' metadata are. Raises AdmissionDiffers,
    ProgramRefused (both sides refuse alike), LinkTypeError, and whatever the capture or the filter raises.
    """
    prepared: dict[int | None, Session] = {}
    current: Session | None = None
    expression = isinstance(argument, str) and loader.is_expression(argument)
    try:
        with open_capture(capture) as source:
            for linktype, packets in _chunks(source, count):
                if rig.profile != "unix" and linktype != _ETHERNET:
                    raise LinkTypeError(
                        f"{capture}: the {rig.profile} rig takes Ethernet frames, this is "
                        f"{linktypes.name_of(linktype)}; use --rig unix"
                    )
                key = linktype if expression else None
                if key not in prepared:
                    program: ClassicProgram | Program = (
                        loader.load_filter_argument(argument, linktype=linktype, optimize=optimize, program=name)
                        if isinstance(argument, str) else argument
                    )  # fmt: skip
                    both = verified_by_both(program, rig)
                    prepared[key] = Session(both, rig, engine=engine, extended=extended, env=env)
                if current is not prepared[key]:
                    if current is not None:
                        current.__exit__(None, None, None)
                    current = prepared[key].__enter__()
                yield current.run(packets)
        if current is not None:
            yield current.contents()
    finally:
        if current is not None:
            current.__exit__(None, None, None)


def _chunks(source: Iterable[Batch], count: int | None) -> Iterator[tuple[int, list[bytes]]]:
    """(link type, up to _CHUNK packets of it in a row), at most `count` packets in all."""
    left = count
    for batch in source:
        held: list[bytes] = []
        kind = -1
        for row in range(len(batch)):
            if left == 0:
                break
            linktype = batch.linktype(row)
            if held and (linktype != kind or len(held) == _CHUNK):
                yield kind, held
                held = []
            kind = linktype
            held.append(batch.packet(row))
            left = None if left is None else left - 1
        if held:
            yield kind, held
        if left == 0:
            return


def verified_by_both(program: ClassicProgram | Program, rig: Rig) -> Verified:
    """Our Verified of a program that the kernel admits as well. Raises AdmissionDiffers, or ProgramRefused."""
    ours: ProgramRefused | None = None
    verified = None
    try:
        verified = verify(program, kernel_btf=running_kernel(), kernel_symbols=running_symbols())
    except ProgramRefused as refusal:
        ours = refusal
    kernel = _kernel_errno(program, rig)
    if kernel != (ours.errno if ours else 0):
        raise AdmissionDiffers(ours.errno if ours else 0, kernel, str(ours) if ours else "")
    if ours is not None:
        raise ours
    assert verified is not None
    return verified


def _kernel_errno(program: ClassicProgram | Program, rig: Rig) -> int:
    """What the live kernel says to a program: 0 or its errno."""
    if isinstance(program, ClassicProgram):
        number = rig.attach_classic(program.to_bytes())
        rig.detach()
        return number
    loaded = Loaded()
    try:
        loaded.program(program)
    except OSError as refusal:  # LoadRefused, or a map that cannot be created
        return refusal.errno or errno.EINVAL
    finally:
        loaded.close()
    return 0


@dataclass(slots=True)
class RandomRun:
    """Totals of a run of random programs. first: the first program whose verdicts differ, with its packets."""

    programs: int = 0
    refused: int = 0
    total: Comparison = field(default_factory=Comparison)
    admission: tuple[Disagreement, ...] = ()
    first: tuple[ClassicProgram, Comparison] | None = None


def random_run(programs: int, seed: int, rig: Rig, *, engine: str = "interpreter", extended: bool = False) -> RandomRun:
    """`programs` valid programs over 25 packets each, and as many damaged ones for their errno."""
    maker = ProgramMaker(seed)
    packets = PacketMaker(seed, deliverable=rig.profile in ("udp", "raw-ip"))
    run = RandomRun(programs)
    run.admission = tuple(disagreements((maker.invalid() for _ in range(programs)), rig))
    for number in range(programs):
        program = maker.valid()
        verified = verify(program)
        make = packets.bytes_of if rig.profile == "unix" and number % 2 else packets.any
        given = [make() for _ in range(_PACKETS_PER_PROGRAM)]
        loadable = extended and not verified.program.internal_calls
        result = compare(verified, given, rig, engine=engine, extended=loadable)
        if result.differing and run.first is None:
            run.first = (program, result)
        run.total += result
    return run
