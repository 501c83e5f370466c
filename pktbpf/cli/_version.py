"""What `pktbpf --version` prints: the versions that decide how results come about."""

from __future__ import annotations

import platform
from importlib import metadata

import pktbpf


def version_text() -> str:
    """One line each: pktbpf, Python, numba, libpcap (library and where it comes from)."""
    rows = (
        ("pktbpf", pktbpf.__version__),
        ("Python", f"{platform.python_version()} ({platform.python_implementation()}, {platform.machine()})"),
        ("numba", metadata.version("numba")),
        ("libpcap", _libpcap()),
    )
    return "\n".join(f"{name:<8} {value}" for name, value in rows)


def _libpcap() -> str:
    from pktbpf import expression
    from pktbpf.errors import PktbpfError

    try:
        version, origin = expression.backend()
        return f"{version.removeprefix('libpcap version ')}, {origin}"
    except PktbpfError as error:
        return f"none ({error})"
