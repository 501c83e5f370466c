// Global data of every section kind, typed variables, static ones, and a constant that code depends on.

#include <linux/bpf.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>

enum mode { MODE_OFF, MODE_COUNT, MODE_DROP = 7 };

struct limits {
	__u16 low;
	__u16 high;
	struct {
		__s32 offset;
		__u8 flags : 3, rest : 5;
	};
	union {
		__u32 word;
		__u8 bytes[4];
	} u;
};

const volatile __u32 threshold = 100;
const volatile enum mode mode = MODE_COUNT;
const volatile bool enabled = true;
const volatile char label[16] = "first";
const volatile __s64 table[4] = { -1, 2, -3, 4 };

struct limits limits = { .low = 1, .high = 0x1234, .offset = -5, .flags = 5, .u = { .word = 0x01020304 } };
__u64 total;
static volatile __u32 hidden_counter = 3;
static volatile __u32 hidden_zero;

volatile __u64 tuned SEC(".data.tuned") = 42;
const volatile __u8 magic SEC(".rodata.magic") = 0x5a;

SEC("socket")
int globals(struct __sk_buff *skb)
{
	if (!enabled || mode == MODE_OFF)
		return 0;
	total += skb->len;
	hidden_counter += 1;
	hidden_zero += hidden_counter;
	tuned += magic;
	if (skb->len > threshold + limits.low)
		return label[skb->len & 15] + table[skb->len & 3] + limits.offset + limits.flags;
	return hidden_zero + limits.u.bytes[1];
}

char _license[] SEC("license") = "Dual MIT/GPL";
