// Refused (EACCES): the address that a lookup returns is used without a test for null.
//
// A hash need not have the key, so bpf_map_lookup_elem may return null. `if (!seen) return 0;` mends it.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 1024);
} marks SEC(".maps");

SEC("socket")
int null_check(struct __sk_buff *skb)
{
	__u32 key = skb->mark;
	__u64 *seen;

	if (skb->len < 64)
		return 0;
	seen = bpf_map_lookup_elem(&marks, &key);
	*seen += 1;
	return -1;
}

char _license[] SEC("license") = "GPL";
