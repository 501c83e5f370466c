// Accepts the first packet of every IPv4 TCP connection (SYN without ACK) and hands it out as a perf event; rejects the
// others.
//
// Each event in `events` is a struct opening, then the packet's first bytes from the Ethernet header on, 64 at most.
// Attach to an AF_PACKET SOCK_RAW socket: byte 0 is the Ethernet header.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define HEAD 64
#define IP_FRAGMENT 6
#define IP_PROTOCOL 9
#define IP_SOURCE 12
#define TCP 6
#define TCP_FLAGS 13
#define SYN 0x02
#define ACK 0x10

struct opening {
	__u32 number;
	__u32 length;
	__be32 source;
	__be32 destination;
	__be16 source_port;
	__be16 destination_port;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} events SEC(".maps");

__u32 openings;
__u32 lost;

SEC("socket")
int syn_events(struct __sk_buff *skb)
{
	struct opening opening = { .length = skb->len };
	__u64 head = skb->len > HEAD ? HEAD : skb->len;
	__u32 tcp;

	if (skb->protocol != bpf_htons(ETH_P_IP))
		return 0;

	__u8 size, protocol, flags;
	__be16 fragment;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &size, 1) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + IP_FRAGMENT, &fragment, 2) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + IP_PROTOCOL, &protocol, 1))
		return 0;
	if (protocol != TCP || fragment & bpf_htons(0x1fff))
		return 0;
	tcp = ETH_HLEN + (size & 15) * 4;
	if (bpf_skb_load_bytes(skb, tcp + TCP_FLAGS, &flags, 1) || (flags & (SYN | ACK)) != SYN)
		return 0;
	if (bpf_skb_load_bytes(skb, ETH_HLEN + IP_SOURCE, &opening.source, 8) ||
	    bpf_skb_load_bytes(skb, tcp, &opening.source_port, 4))
		return 0;
	opening.number = openings++;
	if (bpf_perf_event_output(skb, &events, BPF_F_CURRENT_CPU | head << 32, &opening, sizeof(opening)))
		lost++;
	return -1;
}

char _license[] SEC("license") = "GPL";
