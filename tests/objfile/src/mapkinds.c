// Maps with first contents, inner maps both ways, and the fields of a definition that are easy to get wrong.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct inner_array {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 4);
};

struct inner_array inner_a SEC(".maps");
struct inner_array inner_b SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(key_size, sizeof(__u32));
	__uint(max_entries, 4);
	__array(values, struct inner_array);
} outer_array SEC(".maps") = {
	.values = { [0] = &inner_a, [2] = &inner_b, [3] = &inner_a },
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__type(key, __u32);
	__uint(max_entries, 8);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_HASH);
		__type(key, __u16);
		__type(value, char[6]);
		__uint(max_entries, 32);
	});
} outer_hash SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(int));
	__uint(value_size, sizeof(int));
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 5000);
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_BLOOM_FILTER);
	__uint(value_size, 8);
	__uint(max_entries, 100);
	__uint(map_extra, 3);
} bloom SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__type(value, __u32);
	__uint(max_entries, 10);
} queue SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(key_size, 16);
	__type(value, struct { __u64 a; __u32 b; });
	__uint(max_entries, 1000);
	__uint(map_flags, BPF_F_NUMA_NODE);
	__uint(numa_node, 0);
	__uint(pinning, 1);
} pinned SEC(".maps");

SEC("socket")
int mapkinds(struct __sk_buff *skb)
{
	__u32 key = skb->len & 3, value = skb->len;
	__u16 small = key;
	__u64 *found = 0;
	void *inner;

	inner = bpf_map_lookup_elem(&outer_array, &key);
	if (inner)
		found = bpf_map_lookup_elem(inner, &key);
	inner = bpf_map_lookup_elem(&outer_hash, &key);
	if (inner)
		bpf_map_delete_elem(inner, &small);
	bpf_map_push_elem(&queue, &value, BPF_EXIST);
	bpf_perf_event_output(skb, &events, BPF_F_CURRENT_CPU, &value, sizeof(value));
	bpf_ringbuf_output(&ring, &value, sizeof(value), 0);
	return found ? *found : 1;
}

char _license[] SEC("license") = "GPL";
