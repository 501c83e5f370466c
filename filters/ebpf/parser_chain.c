// Walks VLAN tags, MPLS labels, IPv4 and IPv6 headers by tail calls; accepts packets in which it finds TCP or UDP.
//
// Each layer is a program of its own in the array `layers`, filled when the object is loaded. cb[0] carries the offset
// of the next header, cb[1] what has been seen (the bits of enum seen) from one program to the next. `found` counts
// packets by these bits. The return value is 0 (reject) or the offset of the TCP or UDP header plus 64 (keep that much).
// Fragments other than the first are rejected: they have no transport header. Byte 0 is the Ethernet header.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define KEEP 64

enum layer { LAYER_VLAN, LAYER_MPLS, LAYER_IP, LAYER_IP6, LAYERS };
enum seen { SEEN_VLAN = 1, SEEN_MPLS = 2, SEEN_IP = 4, SEEN_IP6 = 8, SEEN_TCP = 16, SEEN_UDP = 32 };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 64);
} found SEC(".maps");

int parse_vlan(struct __sk_buff *skb);
int parse_mpls(struct __sk_buff *skb);
int parse_ip(struct __sk_buff *skb);
int parse_ip6(struct __sk_buff *skb);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(max_entries, LAYERS);
	__array(values, int(struct __sk_buff *));
} layers SEC(".maps") = {
	.values = {
		[LAYER_VLAN] = (void *)&parse_vlan,
		[LAYER_MPLS] = (void *)&parse_mpls,
		[LAYER_IP] = (void *)&parse_ip,
		[LAYER_IP6] = (void *)&parse_ip6,
	},
};

static __always_inline int load16(struct __sk_buff *skb, __u32 offset)
{
	__be16 value;

	return bpf_skb_load_bytes(skb, offset, &value, sizeof(value)) ? -1 : bpf_ntohs(value);
}

static __always_inline int load8(struct __sk_buff *skb, __u32 offset)
{
	__u8 value;

	return bpf_skb_load_bytes(skb, offset, &value, sizeof(value)) ? -1 : value;
}

static __always_inline void next_layer(struct __sk_buff *skb, int ethertype)
{
	switch (ethertype) {
	case ETH_P_8021Q:
	case ETH_P_8021AD:
		bpf_tail_call(skb, &layers, LAYER_VLAN);
		break;
	case ETH_P_MPLS_UC:
	case ETH_P_MPLS_MC:
		bpf_tail_call(skb, &layers, LAYER_MPLS);
		break;
	case ETH_P_IP:
		bpf_tail_call(skb, &layers, LAYER_IP);
		break;
	case ETH_P_IPV6:
		bpf_tail_call(skb, &layers, LAYER_IP6);
		break;
	}
}

static __always_inline int transport(struct __sk_buff *skb, int protocol, __u32 offset)
{
	__u32 key = skb->cb[1];
	__u64 *count;

	if (protocol == IPPROTO_TCP)
		key |= SEEN_TCP;
	else if (protocol == IPPROTO_UDP)
		key |= SEEN_UDP;
	else
		return 0;
	count = bpf_map_lookup_elem(&found, &key);
	if (count)
		__sync_fetch_and_add(count, 1);
	return offset + KEEP;
}

SEC("socket")
int parser_chain(struct __sk_buff *skb)
{
	skb->cb[0] = ETH_HLEN;
	skb->cb[1] = 0;
	next_layer(skb, load16(skb, ETH_HLEN - 2));
	return 0;
}

SEC("socket/vlan")
int parse_vlan(struct __sk_buff *skb)
{
	__u32 offset = skb->cb[0];

	skb->cb[0] = offset + 4;
	skb->cb[1] |= SEEN_VLAN;
	next_layer(skb, load16(skb, offset + 2));
	return 0;
}

SEC("socket/mpls")
int parse_mpls(struct __sk_buff *skb)
{
	__u32 offset = skb->cb[0];
	int bottom = load8(skb, offset + 2);
	int version;

	if (bottom < 0)
		return 0;
	skb->cb[0] = offset + 4;
	skb->cb[1] |= SEEN_MPLS;
	if (!(bottom & 1)) {
		bpf_tail_call(skb, &layers, LAYER_MPLS);
		return 0;
	}
	version = load8(skb, offset + 4) >> 4;
	if (version == 4)
		bpf_tail_call(skb, &layers, LAYER_IP);
	else if (version == 6)
		bpf_tail_call(skb, &layers, LAYER_IP6);
	return 0;
}

SEC("socket/ip")
int parse_ip(struct __sk_buff *skb)
{
	__u32 offset = skb->cb[0];
	int head = load8(skb, offset);
	int fragment = load16(skb, offset + 6);

	if (head < 0 || fragment < 0 || fragment & 0x1fff)
		return 0;
	skb->cb[1] |= SEEN_IP;
	return transport(skb, load8(skb, offset + 9), offset + ((head & 15) << 2));
}

SEC("socket/ip6")
int parse_ip6(struct __sk_buff *skb)
{
	__u32 offset = skb->cb[0];

	skb->cb[1] |= SEEN_IP6;
	return transport(skb, load8(skb, offset + 6), offset + 40);
}

char _license[] SEC("license") = "GPL";
