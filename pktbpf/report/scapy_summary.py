"""scapy's one-line summary of a packet: the only module that imports scapy, and only when it is asked for."""

from __future__ import annotations

import functools
import logging
from typing import Any

from pktbpf.capture import linktypes


@functools.cache
def _layer(linktype: int) -> Any:
    """scapy's class for a link type, or None."""
    logging.getLogger("scapy").setLevel(logging.ERROR)
    import scapy.all  # noqa: F401  registers every link type
    from scapy.config import conf

    layers: Any = conf.l2types.num2layer
    return layers.get(linktype) or layers.get(linktypes.to_file(linktype))


def summary(linktype: int, packet: bytes) -> str:
    """One line; for a link type that scapy does not know, its name and the length."""
    layer = _layer(linktype)
    if layer is None:
        return f"{linktypes.name_of(linktype)}, length {len(packet)}"
    return " ".join(str(layer(packet).summary()).split())
