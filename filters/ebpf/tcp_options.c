// Accepts TCP segments over IPv4 whose options hold the kind `wanted` (8, timestamps, unless set); rejects the rest.
//
// Walks the options with an open-coded iterator (bpf_iter_num, Linux 6.4) over a dynptr of the packet, so the loop needs
// no proof that it ends. `lengths` counts the packets by the number of options met. Byte 0 is the Ethernet header.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define END 0
#define NOP 1
#define MOST 40 /* bytes of options that a TCP header has room for */

struct bpf_iter_num {
	__u64 opaque[1];
};

extern int bpf_dynptr_from_skb(struct __sk_buff *skb, __u64 flags, struct bpf_dynptr *ptr) __ksym;
extern void *bpf_dynptr_slice(const struct bpf_dynptr *ptr, __u32 offset, void *buffer, __u32 size) __ksym;
extern int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end) __ksym;
extern int *bpf_iter_num_next(struct bpf_iter_num *it) __ksym;
extern void bpf_iter_num_destroy(struct bpf_iter_num *it) __ksym;

const volatile __u8 wanted = 8;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, MOST + 1);
} lengths SEC(".maps");

static __noinline __u32 byte_at(const struct bpf_dynptr *packet, __u32 offset)
{
	__u8 buffer[1] = {};
	__u8 *byte = bpf_dynptr_slice(packet, offset, buffer, 1);

	return byte ? *byte : END;
}

SEC("socket")
int tcp_options(struct __sk_buff *skb)
{
	__u32 ip = ETH_HLEN, tcp, at, end, kind, count = 0, found = 0;
	struct bpf_dynptr packet;
	struct bpf_iter_num it;
	__u64 *seen;

	if (skb->protocol != bpf_htons(ETH_P_IP) || bpf_dynptr_from_skb(skb, 0, &packet))
		return 0;
	if (byte_at(&packet, ip + 9) != 6 || byte_at(&packet, ip + 6) & 0x1f || byte_at(&packet, ip + 7))
		return 0;
	tcp = ip + (byte_at(&packet, ip) & 15) * 4;
	at = tcp + 20;
	end = tcp + (byte_at(&packet, tcp + 12) >> 4) * 4;

	bpf_iter_num_new(&it, 0, MOST);
	while (bpf_iter_num_next(&it)) {
		if (at >= end)
			break;
		kind = byte_at(&packet, at);
		if (kind == END)
			break;
		count += kind != NOP;
		found |= kind == wanted;
		at += kind == NOP ? 1 : byte_at(&packet, at + 1) ?: 1;
	}
	bpf_iter_num_destroy(&it);

	seen = bpf_map_lookup_elem(&lengths, &count);
	if (seen)
		__sync_fetch_and_add(seen, 1);
	return found ? -1 : 0;
}

char _license[] SEC("license") = "GPL";
