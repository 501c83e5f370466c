"""Names of engines as the plugin's option and marker take them."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from pktbpf import engine


def names_of(chosen: Iterable[str]) -> list[str]:
    """The engines named, each once; `all` stands for every one. Raises pytest.UsageError for an unknown name."""
    found: list[str] = []
    for name in chosen:
        if name != "all" and name not in engine.NAMES:
            raise pytest.UsageError(f"unknown engine {name!r}; there are {', '.join((*engine.NAMES, 'all'))}")
        found += engine.NAMES if name == "all" else [name]
    return list(dict.fromkeys(found))
