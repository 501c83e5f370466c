// Refused (EACCES): a byte of the packet indexes a table of 64 entries, but is tested against 128.
//
// `tos >= sizeof(classes)` mends it.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_helpers.h>

#define IP_TOS 1

__u8 classes[64];

SEC("socket")
int index_bound(struct __sk_buff *skb)
{
	__u32 tos = 0;

	if (bpf_skb_load_bytes(skb, ETH_HLEN + IP_TOS, &tos, 1))
		return 0;
	if (tos >= 128)
		return 0;
	return classes[tos] ? -1 : 0;
}

char _license[] SEC("license") = "GPL";
