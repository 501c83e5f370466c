"""pktbpf: classic and extended BPF socket filters over captures, offline, with the kernel's verdicts.

Public names are loaded when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pktbpf.capture.open import open_capture as open_capture
    from pktbpf.errors import CaptureError as CaptureError
    from pktbpf.errors import CheckFailed as CheckFailed
    from pktbpf.errors import ExpressionError as ExpressionError
    from pktbpf.errors import FilterSyntaxError as FilterSyntaxError
    from pktbpf.errors import KernelUnavailable as KernelUnavailable
    from pktbpf.errors import LinkTypeError as LinkTypeError
    from pktbpf.errors import MapError as MapError
    from pktbpf.errors import ObjectError as ObjectError
    from pktbpf.errors import PktbpfError as PktbpfError
    from pktbpf.errors import ProgramRefused as ProgramRefused
    from pktbpf.errors import UsageError as UsageError
    from pktbpf.expression import compile as compile
    from pktbpf.filter import Filter as Filter
    from pktbpf.filter import verify as verify
    from pktbpf.loader import load as load
    from pktbpf.maps.face import Map as Map
    from pktbpf.program import ClassicProgram as ClassicProgram
    from pktbpf.program import MapSpec as MapSpec
    from pktbpf.program import Program as Program
    from pktbpf.program import Verified as Verified
    from pktbpf.program import trust as trust
    from pktbpf.replayer import Results as Results
    from pktbpf.replayer import replay as replay
    from pktbpf.translator import translate as translate

__version__ = "0.1.0"

# Public name -> module that has it.
_HOME = {
    "CaptureError": "errors",
    "CheckFailed": "errors",
    "ClassicProgram": "program",
    "ExpressionError": "errors",
    "Filter": "filter",
    "FilterSyntaxError": "errors",
    "KernelUnavailable": "errors",
    "LinkTypeError": "errors",
    "Map": "maps.face",
    "MapError": "errors",
    "MapSpec": "program",
    "ObjectError": "errors",
    "PktbpfError": "errors",
    "Program": "program",
    "ProgramRefused": "errors",
    "Results": "replayer",
    "UsageError": "errors",
    "Verified": "program",
    "compile": "expression",
    "load": "loader",
    "open_capture": "capture.open",
    "replay": "replayer",
    "translate": "translator",
    "trust": "program",
    "verify": "filter",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name == "bpf":
        return importlib.import_module(f"{__name__}.bpf")
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({name for name in globals() if name.startswith("__")} | {*_HOME, "bpf"})
