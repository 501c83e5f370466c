// Counts packets per IP protocol; accepts every packet.
//
// The map `counts` is an array indexed by protocol number (6 TCP, 17 UDP, ...): IPv4's protocol field, or the next
// header of an IPv6 packet's fixed header. What is neither IPv4 nor IPv6 counts under 255, which is reserved.
// Attach to an AF_PACKET SOCK_RAW socket: byte 0 is the Ethernet header.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define IP_PROTOCOL 9
#define IP6_NEXT_HEADER 6
#define OTHER 255

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 256);
} counts SEC(".maps");

SEC("socket")
int proto_counts(struct __sk_buff *skb)
{
	__u32 key = OTHER;
	__u8 protocol;
	__u64 *count;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN + IP_PROTOCOL, &protocol, 1) == 0)
			key = protocol;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN + IP6_NEXT_HEADER, &protocol, 1) == 0)
			key = protocol;
	}
	count = bpf_map_lookup_elem(&counts, &key);
	if (count)
		__sync_fetch_and_add(count, 1);
	return -1;
}

char _license[] SEC("license") = "GPL";
