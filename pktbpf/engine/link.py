"""Where the headers of a captured packet are: link header, protocol, packet type, network and UDP header.

Compiled; one call per packet and only for programs or profiles that need it. The values are those a live socket's skb
would have (eth_type_trans, skb_vlan_untag, ip_rcv, udp_rcv); for cooked captures the header of the file tells them.
"""

from __future__ import annotations

import numpy as np

from pktbpf.abi.context import UNSET
from pktbpf.hot import Bytes, Ints, Scalar, hot

# DLT values with a link header of their own; everything else counts as bytes without one.
EN10MB, NULL, LOOP, RAW, PPP, PPP_SERIAL = 1, 0, 108, 12, 9, 50
LINUX_SLL, LINUX_SLL2, IPV4, IPV6, NETLINK = 113, 276, 228, 229, 253
IEEE802_11, IEEE802_11_RADIO, RAW_FILE, RAW_BSD = 105, 127, 101, 14

# Link headers of one length, in bytes.
FIXED_HEADER = {EN10MB: 14, NULL: 4, LOOP: 4, LINUX_SLL: 16, LINUX_SLL2: 20, NETLINK: 16, RAW: 0, IPV4: 0, IPV6: 0}

# ARPHRD_ types of the devices behind them (uapi linux/if_arp.h)
ARPHRD_ETHER, ARPHRD_PPP, ARPHRD_LOOPBACK, ARPHRD_NONE = 1, 512, 772, 0xFFFE
ARPHRD_80211, ARPHRD_RADIOTAP, ARPHRD_NETLINK, ARPHRD_VOID = 801, 803, 824, 0xFFFF

ETH_P_802_3, ETH_P_802_2, ETH_P_IP, ETH_P_IPV6, ETH_P_8021Q, ETH_P_8021AD = 1, 4, 0x0800, 0x86DD, 0x8100, 0x88A8

# Columns of the answer of link_header.
HEADER, PROTOCOL, PKT_TYPE, HATYPE, IFINDEX = range(5)


@hot
def be16(data: Bytes, at: Scalar) -> Scalar:
    """Two bytes of data at index `at`, network order, as int64; the caller checks bounds."""
    return np.int64(data[at]) << 8 | np.int64(data[at + 1])


@hot
def be32(data: Bytes, at: Scalar) -> Scalar:
    """Four bytes of data at index `at`, network order, as int64; the caller checks bounds."""
    return be16(data, at) << 16 | be16(data, at + 2)


@hot
def ether_protocol(data: Bytes, at: Scalar, end: Scalar) -> Scalar:
    """What eth_type_trans makes of the type/length field at `at`: an EtherType, or one of the 802.3 pseudo types."""
    value = be16(data, at)
    if value >= 0x600:
        return value
    if at + 4 <= end and be16(data, at + 2) == 0xFFFF:
        return np.int64(ETH_P_802_3)
    return np.int64(ETH_P_802_2)


@hot
def ip_protocol(data: Bytes, at: Scalar, end: Scalar) -> Scalar:
    """EtherType by the version nibble at `at`, 0 for neither IPv4 nor IPv6."""
    if at >= end:
        return np.int64(0)
    version = data[at] >> 4
    if version == 4:
        return np.int64(ETH_P_IP)
    return np.int64(ETH_P_IPV6) if version == 6 else np.int64(0)


@hot
def _ethernet(data: Bytes, at: Scalar, end: Scalar, mac: Scalar, out: Ints) -> None:
    out[HATYPE] = ARPHRD_ETHER
    if end - at < 14:
        out[HEADER] = min(14, end - at)
        return
    out[HEADER] = 14
    out[PROTOCOL] = ether_protocol(data, at + 12, end)
    if data[at] & 1:
        broadcast = be16(data, at) == 0xFFFF and be32(data, at + 2) == 0xFFFFFFFF
        out[PKT_TYPE] = 1 if broadcast else 2
    elif mac >= 0 and (be16(data, at) << 32 | be32(data, at + 2)) != mac:
        out[PKT_TYPE] = 3
    if mac >= 0 and (be16(data, at + 6) << 32 | be32(data, at + 8)) == mac:
        out[PKT_TYPE] = 4


@hot
def _cooked(data: Bytes, at: Scalar, end: Scalar, linktype: Scalar, out: Ints) -> None:
    """LINUX_SLL, LINUX_SLL2 and NETLINK headers carry the metadata of the live packet."""
    size = 20 if linktype == LINUX_SLL2 else 16
    out[HEADER] = min(size, end - at)
    if end - at < size:
        return
    if linktype == LINUX_SLL2:
        out[PROTOCOL] = be16(data, at)
        out[IFINDEX] = be32(data, at + 4)
        out[HATYPE] = be16(data, at + 8)
        out[PKT_TYPE] = data[at + 10]
    else:
        out[PKT_TYPE] = be16(data, at)
        out[HATYPE] = be16(data, at + 2)
        out[PROTOCOL] = be16(data, at + 14)


@hot
def _small(data: Bytes, at: Scalar, end: Scalar, linktype: Scalar, out: Ints) -> None:
    """Headers of 0 to 4 bytes: BSD loopback, PPP, raw IP, 802.11."""
    if linktype == NULL or linktype == LOOP:
        out[HATYPE] = ARPHRD_LOOPBACK
        out[HEADER] = min(4, end - at)
        out[PROTOCOL] = ip_protocol(data, at + 4, end)
    elif linktype == PPP or linktype == PPP_SERIAL:
        out[HATYPE] = ARPHRD_PPP
        size = 4 if end - at >= 2 and data[at] == 0xFF and data[at + 1] == 0x03 else 2
        out[HEADER] = min(size, end - at)
        out[PROTOCOL] = ip_protocol(data, at + size, end)
    elif linktype == IEEE802_11 or linktype == IEEE802_11_RADIO:
        out[HATYPE] = ARPHRD_80211 if linktype == IEEE802_11 else ARPHRD_RADIOTAP
        out[PROTOCOL] = ETH_P_802_2
    elif linktype in (RAW, RAW_FILE, RAW_BSD, IPV4, IPV6):
        out[HATYPE] = ARPHRD_NONE
        out[PROTOCOL] = ip_protocol(data, at, end)
    else:
        out[HATYPE] = ARPHRD_VOID


@hot
def link_header(data: Bytes, at: Scalar, end: Scalar, linktype: Scalar, mac: Scalar, out: Ints) -> None:
    """Parse the link header at index `at`; captured bytes end at `end`. mac: own address as an integer, -1 for none.

    out: int64[5] for HEADER (length in bytes), PROTOCOL, PKT_TYPE, HATYPE, IFINDEX (-1: the file does not say).
    """
    out[:] = 0
    out[IFINDEX] = -1
    if linktype == EN10MB:
        _ethernet(data, at, end, mac, out)
    elif linktype == LINUX_SLL or linktype == LINUX_SLL2 or linktype == NETLINK:
        _cooked(data, at, end, linktype, out)
    else:
        _small(data, at, end, linktype, out)


@hot
def ip_total_length(data: Bytes, at: Scalar, end: Scalar) -> Scalar:
    """Length in bytes that an IPv4 or IPv6 header at `at` states, UNSET for none. The stack trims padding to it."""
    if end - at >= 20 and data[at] >> 4 == 4:
        return be16(data, at + 2)
    if end - at >= 40 and data[at] >> 4 == 6:
        return be16(data, at + 4) + 40
    return np.int64(UNSET)


@hot
def udp_offset(data: Bytes, at: Scalar, end: Scalar) -> Scalar:
    """Bytes from the IP header at `at` to the UDP header, UNSET when a UDP socket would not get the packet.

    Fragments count as not delivered: a socket sees the reassembled datagram only.
    """
    if end - at >= 20 and data[at] >> 4 == 4:
        size = np.int64(data[at] & 15) * 4
        if size < 20 or data[at + 9] != 17 or be16(data, at + 6) & 0x3FFF:
            return np.int64(UNSET)
        return size
    if end - at < 40 or data[at] >> 4 != 6:
        return np.int64(UNSET)
    following, offset = data[at + 6], np.int64(40)
    while following in (0, 43, 60):  # hop-by-hop, routing, destination options
        if at + offset + 8 > end:
            return np.int64(UNSET)
        following = data[at + offset]
        offset += np.int64(data[at + offset + 1]) * 8 + 8
    return offset if following == 17 else np.int64(UNSET)
