// Refused (EACCES): socket filters have no pointer to the packet.
//
// bpf_skb_load_bytes(skb, 0, &first, 1) mends it.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("socket")
int packet_pointer(struct __sk_buff *skb)
{
	__u8 *data = (__u8 *)(long)skb->data;
	__u8 *end = (__u8 *)(long)skb->data_end;

	if (data + 1 > end)
		return 0;
	return *data ? -1 : 0;
}

char _license[] SEC("license") = "GPL";
