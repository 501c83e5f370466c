"""Results of a replay: counters per filter and per capture, per-packet columns on request. Values only, no I/O.

Packets and bytes are counted once per capture. Each filter splits all packets it saw into accepted and dropped;
truncated are those accepted packets that its return value cuts, indeterminate and undelivered are explained in
`pktbpf.engine.base.Fault` and count as dropped unless the policy of the replay says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pktbpf.errors import PktbpfError

if TYPE_CHECKING:
    from pktbpf.maps.face import Map


@dataclass(slots=True)
class FilterResult:
    """What one filter did with all packets.

    bytes_kept: captured bytes that accepted packets keep after the cut. faults: number of packets by name of the fault,
    without indeterminate and undelivered. maps: the live maps of its program by name. verdict (uint32[n], the
    program's return value), kept (int64[n], bytes of the packet from the program's byte 0 that the socket would get, 0
    for a dropped one) and fault (uint8[n]) are None unless columns were asked for.
    """

    name: str
    accepted: int = 0
    dropped: int = 0
    truncated: int = 0
    indeterminate: int = 0
    undelivered: int = 0
    bytes_kept: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    maps: dict[str, Map] = field(default_factory=dict)
    verdict: NDArray[np.uint32] | None = None
    kept: NDArray[np.int64] | None = None
    fault: NDArray[np.uint8] | None = None

    @property
    def packets(self) -> int:
        """Packets that this filter saw."""
        return self.accepted + self.dropped


@dataclass(slots=True)
class CaptureResult:
    """What was read from one capture.

    linktypes: DLT numbers of the packets met, in order of appearance. bytes: captured; wire_bytes: as they were sent.
    accepted: packets that any filter accepted. error: why reading ended early, None for a whole capture.
    """

    name: str
    linktypes: list[int] = field(default_factory=list)
    packets: int = 0
    bytes: int = 0
    wire_bytes: int = 0
    accepted: int = 0
    error: PktbpfError | None = None


@dataclass(slots=True)
class Columns:
    """One row per packet: capture (int32, index into `Results.captures`), number (int64, from 1 in each capture),
    timestamp (int64, ns since 1970), caplen and wirelen (int64, bytes). Each filter's own columns are in its result."""

    capture: NDArray[np.int32]
    number: NDArray[np.int64]
    timestamp: NDArray[np.int64]
    caplen: NDArray[np.int64]
    wirelen: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.number)


@dataclass(slots=True)
class Results:
    """Everything a replay found out. elapsed: seconds of reading and filtering, preparation left out.

    complete: False when the replay was interrupted. `accepted` and `dropped` count packets that any filter, and that no
    filter, accepted.
    """

    filters: list[FilterResult] = field(default_factory=list)
    captures: list[CaptureResult] = field(default_factory=list)
    elapsed: float = 0.0
    complete: bool = True
    columns: Columns | None = None

    def __repr__(self) -> str:
        each = ", ".join(f"{one.name[:40]!r}: {one.accepted} accepted" for one in self.filters[:5])
        more = f", and {len(self.filters) - 5} more" if len(self.filters) > 5 else ""
        return f"<Results of {self.packets} packets, {each or 'no filter'}{more}>"

    @property
    def packets(self) -> int:
        """Packets read from all captures."""
        return sum(capture.packets for capture in self.captures)

    @property
    def bytes(self) -> int:
        """Captured bytes read from all captures."""
        return sum(capture.bytes for capture in self.captures)

    @property
    def wire_bytes(self) -> int:
        """Bytes that all packets had on the wire."""
        return sum(capture.wire_bytes for capture in self.captures)

    @property
    def accepted(self) -> int:
        """Packets that any filter accepted."""
        return sum(capture.accepted for capture in self.captures)

    @property
    def dropped(self) -> int:
        """Packets that no filter accepted."""
        return self.packets - self.accepted

    @property
    def maps(self) -> dict[str, Map]:
        """The live maps of all filters by name; of different maps of one name the first filter's has it, the others'
        are FILTER:NAME."""
        found: dict[str, Map] = {}
        for result in self.filters:
            for name, one in result.maps.items():
                if found.setdefault(name, one) is not one and all(one is not other for other in found.values()):
                    found[f"{result.name}:{name}"] = one
        return found

    @property
    def linktypes(self) -> list[int]:
        """DLT numbers met, in order of appearance."""
        return list(dict.fromkeys(kind for capture in self.captures for kind in capture.linktypes))

    @property
    def rate(self) -> float:
        """Packets per second, 0 when nothing was read."""
        return self.packets / self.elapsed if self.elapsed > 0 else 0.0

    @property
    def errors(self) -> list[PktbpfError]:
        """What went wrong with captures, in order."""
        return [capture.error for capture in self.captures if capture.error is not None]
