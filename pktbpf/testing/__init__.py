"""Filters under test: what the pytest plugin is made of, usable without it.

`packets()` and `classic_programs()` are hypothesis strategies; `FilterUnderTest` says whether a filter accepts a packet
and why; `PacketBuilder` makes the usual packets; `as_packet` takes bytes, hex, scapy and dpkt. Names are loaded when
first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pktbpf.testing.builder import PacketBuilder as PacketBuilder
    from pktbpf.testing.captures import CapturedPacket as CapturedPacket
    from pktbpf.testing.captures import CaptureUnderTest as CaptureUnderTest
    from pktbpf.testing.captures import as_packet as as_packet
    from pktbpf.testing.golden import Golden as Golden
    from pktbpf.testing.strategies import classic_programs as classic_programs
    from pktbpf.testing.strategies import packets as packets
    from pktbpf.testing.subject import FilterUnderTest as FilterUnderTest
    from pktbpf.testing.subject import Judgement as Judgement
    from pktbpf.testing.subject import Kept as Kept

_HOME = {
    "CaptureUnderTest": "captures",
    "CapturedPacket": "captures",
    "FilterUnderTest": "subject",
    "Golden": "golden",
    "Judgement": "subject",
    "Kept": "subject",
    "PacketBuilder": "builder",
    "as_packet": "captures",
    "classic_programs": "strategies",
    "packets": "strategies",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
