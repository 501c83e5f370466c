// Values with a lock, a timer and kernel pointers, nested and in arrays; enumerators at the edge of 32 bits.

#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#define __kptr_new __attribute__((btf_type_tag("kptr")))

enum edge { MINUS = -5, PLUS = 7 };
enum high { LOW = 1, HIGH = 0x80000010u };

struct task_struct;

struct locked {
	__u32 id;
	struct bpf_spin_lock lock;
	__u64 count;
};

struct timed {
	__u64 started;
	struct bpf_timer timers[2];
	struct {
		struct task_struct __kptr_new *owner;
	} inner;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, struct locked);
	__uint(max_entries, 16);
} locked SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct timed);
	__uint(max_entries, 1);
} timed SEC(".maps");

__u64 out[4];

SEC("socket")
int special(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct locked *value = bpf_map_lookup_elem(&locked, &key);

	if (bpf_map_lookup_elem(&timed, &key))
		out[3] += 1;
	out[0] = bpf_core_enum_value(enum edge, MINUS);
	out[1] = bpf_core_enum_value(enum high, HIGH);
	if (!value)
		return 0;
	bpf_spin_lock(&value->lock);
	value->count += skb->len;
	bpf_spin_unlock(&value->lock);
	return value->id;
}

char _license[] SEC("license") = "GPL";
