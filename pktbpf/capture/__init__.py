"""Bytes to packets and back: pcap and pcapng, plain or compressed, at constant memory."""
