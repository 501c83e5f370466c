// Counts packets and bytes per IPv4 destination in an LRU hash; accepts IPv4 packets, rejects all others.
//
// The map `flows` forgets the destinations that were silent longest when it is full. Keys are addresses in network
// order. Attach to an AF_PACKET SOCK_RAW socket: byte 0 is the Ethernet header.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define IP_DESTINATION 16

struct traffic {
	__u64 packets;
	__u64 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, __be32);
	__type(value, struct traffic);
	__uint(max_entries, 65536);
} flows SEC(".maps");

SEC("socket")
int dest_bytes(struct __sk_buff *skb)
{
	struct traffic first = { .packets = 1, .bytes = skb->len };
	struct traffic *known;
	__be32 destination;

	if (skb->protocol != bpf_htons(ETH_P_IP))
		return 0;
	if (bpf_skb_load_bytes(skb, ETH_HLEN + IP_DESTINATION, &destination, sizeof(destination)) < 0)
		return 0;
	known = bpf_map_lookup_elem(&flows, &destination);
	if (known) {
		__sync_fetch_and_add(&known->packets, 1);
		__sync_fetch_and_add(&known->bytes, skb->len);
	} else {
		bpf_map_update_elem(&flows, &destination, &first, BPF_NOEXIST);
	}
	return -1;
}

char _license[] SEC("license") = "GPL";
