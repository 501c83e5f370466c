// Maps the old way: SEC("maps") with struct bpf_map_def, types told by BPF_ANNOTATE_KV_PAIR; no license section.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct map_def {
	unsigned int type;
	unsigned int key_size;
	unsigned int value_size;
	unsigned int max_entries;
	unsigned int map_flags;
};

struct pair {
	__u32 packets;
	__u32 bytes;
};

struct map_def SEC("maps") first_map = {
	.type = BPF_MAP_TYPE_HASH,
	.key_size = sizeof(__u32),
	.value_size = sizeof(struct pair),
	.max_entries = 128,
	.map_flags = BPF_F_NO_PREALLOC,
};

struct map_def SEC("maps") second_map = {
	.type = BPF_MAP_TYPE_ARRAY,
	.key_size = sizeof(__u32),
	.value_size = sizeof(__u64),
	.max_entries = 4,
};

struct ____btf_map_first_map {
	__u32 key;
	struct pair value;
};
struct ____btf_map_first_map __attribute__((section(".maps.first_map"), used)) ____btf_map_first_map = {};

SEC("socket")
int legacy(struct __sk_buff *skb)
{
	__u32 key = 1;
	__u64 *slot = bpf_map_lookup_elem(&second_map, &key);
	struct pair *pair = bpf_map_lookup_elem(&first_map, &key);

	return (slot ? *slot : 0) + (pair ? pair->bytes : 0);
}
