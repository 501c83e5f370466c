"""Engines: what runs a verified program over packets. `get(name)` finds one; `NAMES` lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pktbpf.errors import UsageError

if TYPE_CHECKING:
    from pktbpf.engine.base import Engine

# One line per engine: its module is imported when it is asked for.
NAMES: tuple[str, ...] = ("interpreter", "reference")


def get(name: str | Engine) -> Engine:
    """The engine called `name`, or the engine given itself; UsageError for an unknown name."""
    if not isinstance(name, str):
        return name
    if name not in NAMES:
        raise UsageError(f"unknown engine {name!r}; there are {', '.join(NAMES)}")
    import importlib

    engine: Engine = importlib.import_module(f"pktbpf.engine.{name}").ENGINE
    return engine
