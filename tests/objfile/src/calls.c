// Calls of every kind: global and static functions in .text, nested and shared between programs, callbacks.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 64);
} sizes SEC(".maps");

__u32 runs;

static __noinline int leaf(__u32 x)
{
	runs += 1;
	return x * 7 + 3;
}

__noinline int middle(__u32 x)
{
	return leaf(x) + leaf(x + 1);
}

__attribute__((visibility("hidden"))) __noinline int concealed(__u32 x)
{
	return leaf(x) - 1;
}

static __noinline int unused_by_second(__u32 x)
{
	return middle(x) ^ concealed(x);
}

struct bpf_map;

static long sum_one(struct bpf_map *map, __u32 *key, __u64 *value, __u64 *sum)
{
	*sum += *value;
	return 0;
}

static long count_down(__u32 index, __u32 *left)
{
	*left -= 1;
	return *left == 0;
}

SEC("socket/first")
int first(struct __sk_buff *skb)
{
	return unused_by_second(skb->len);
}

SEC("socket/second")
int second(struct __sk_buff *skb)
{
	return concealed(skb->len) + middle(1);
}

SEC("socket/third")
int third(struct __sk_buff *skb)
{
	__u64 sum = 0;
	__u32 left = skb->len & 15;

	bpf_for_each_map_elem(&sizes, sum_one, &sum, 0);
	bpf_loop(32, count_down, &left, 0);
	return sum + left + leaf(5);
}

char _license[] SEC("license") = "GPL";
