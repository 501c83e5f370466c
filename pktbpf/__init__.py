"""pktbpf: classic and extended BPF socket filters over captures, offline, with the kernel's verdicts.

Public names are loaded when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pktbpf.capture.open import open_capture
    from pktbpf.errors import (
        CaptureError,
        CheckFailed,
        ExpressionError,
        FilterSyntaxError,
        KernelUnavailable,
        LinkTypeError,
        MapError,
        ObjectError,
        PktbpfError,
        ProgramRefused,
        UsageError,
    )  # fmt: skip
    from pktbpf.expression import compile
    from pktbpf.filter import Filter, verify
    from pktbpf.loader import load
    from pktbpf.program import ClassicProgram, MapSpec, Program, Verified, trust
    from pktbpf.replayer import Results, replay
    from pktbpf.translator import translate

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
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
