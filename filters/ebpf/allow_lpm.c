// Accepts IPv4 packets whose source address is on an allow-list of prefixes; rejects all others.
//
// The list is the LPM trie `allowed`: a key is the prefix length (host order) and the address (network order), the value
// a rule number that `hits` counts by. Without an entry every packet is rejected. Byte 0 is the Ethernet header.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define IP_SOURCE 12
#define RULES 64

struct prefix {
	__u32 length;
	__be32 address;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__type(key, struct prefix);
	__type(value, __u32);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} allowed SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, RULES);
} hits SEC(".maps");

SEC("socket")
int allow_lpm(struct __sk_buff *skb)
{
	struct prefix key = { .length = 32 };
	__u32 *rule;
	__u64 *hit;

	if (skb->protocol != bpf_htons(ETH_P_IP))
		return 0;
	if (bpf_skb_load_bytes(skb, ETH_HLEN + IP_SOURCE, &key.address, sizeof(key.address)) < 0)
		return 0;
	rule = bpf_map_lookup_elem(&allowed, &key);
	if (!rule)
		return 0;
	hit = bpf_map_lookup_elem(&hits, rule);
	if (hit)
		*hit += 1;
	return -1;
}

char _license[] SEC("license") = "GPL";
