// Refused without CAP_PERFMON (EACCES): the padding of the key was never written.
//
// `struct flow` has three bytes between `protocol` and `mark` that a lookup reads as well. `struct flow flow = {};`
// does not clear them either; __builtin_memset(&flow, 0, sizeof(flow)) mends it.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct flow {
	__u8 protocol;
	__u32 mark;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct flow);
	__type(value, __u64);
	__uint(max_entries, 1024);
} flows SEC(".maps");

SEC("socket")
int padding(struct __sk_buff *skb)
{
	struct flow flow;
	__u64 *count;

	flow.protocol = skb->protocol;
	flow.mark = skb->mark;
	count = bpf_map_lookup_elem(&flows, &flow);
	if (count)
		__sync_fetch_and_add(count, 1);
	return -1;
}

char _license[] SEC("license") = "GPL";
