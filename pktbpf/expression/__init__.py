"""pcap-filter expressions -> ClassicProgram, through the system's libpcap or the one in the pcapy-ng wheel.

The result is what `tcpdump -d` of the same libpcap shows for a capture file of that link type. Host and network names
in an expression are looked up as tcpdump does it, in DNS too; a lookup that takes longer than `timeout` is an error.
`PKTBPF_LIBPCAP` names the library: a path, `system` or `wheel`.
"""

from __future__ import annotations

from pktbpf.expression.compiler import backend, compile, link_type_number, strip_comments

__all__ = ["backend", "compile", "link_type_number", "strip_comments"]
