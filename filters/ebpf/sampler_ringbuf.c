// Accepts every `period`-th packet and puts its first bytes, length and time into a ring buffer; rejects the others.
//
// A reader of `samples` gets one struct sample for each. When the ring is full the packet is still accepted, and
// `lost` counts it. Set `period` before loading; 1 takes every packet.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define HEAD 64

const volatile __u32 period = 16;

__u64 seen;
__u64 lost;

struct sample {
	__u64 time;
	__u32 length;
	__u32 captured;
	__u8 head[HEAD];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} samples SEC(".maps");

SEC("socket")
int sampler(struct __sk_buff *skb)
{
	__u64 number = __sync_fetch_and_add(&seen, 1);
	struct sample *sample;
	__u32 captured = skb->len;

	if (period && number % period)
		return 0;
	sample = bpf_ringbuf_reserve(&samples, sizeof(*sample), 0);
	if (!sample) {
		__sync_fetch_and_add(&lost, 1);
		return -1;
	}
	if (captured > HEAD)
		captured = HEAD;
	__builtin_memset(sample->head, 0, HEAD);
	sample->time = bpf_ktime_get_ns();
	sample->length = skb->len;
	sample->captured = captured;
	if (captured && bpf_skb_load_bytes(skb, 0, sample->head, captured) < 0)
		sample->captured = 0;
	bpf_ringbuf_submit(sample, 0);
	return -1;
}

char _license[] SEC("license") = "GPL";
