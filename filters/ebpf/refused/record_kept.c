// Refused (EINVAL): a ring buffer record is not given back when the packet is too short.
//
// bpf_ringbuf_discard(sample, 0) before that return mends it.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct sample {
	__u32 length;
	__u8 head[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} samples SEC(".maps");

SEC("socket")
int record_kept(struct __sk_buff *skb)
{
	struct sample *sample = bpf_ringbuf_reserve(&samples, sizeof(*sample), 0);

	if (!sample)
		return 0;
	sample->length = skb->len;
	if (bpf_skb_load_bytes(skb, 0, sample->head, sizeof(sample->head)))
		return 0;
	bpf_ringbuf_submit(sample, 0);
	return -1;
}

char _license[] SEC("license") = "GPL";
