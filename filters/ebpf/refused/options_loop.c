// Refused (EFAULT): the rounds of the loop depend on the packet; more of them wait than the verifier remembers.
//
// A loop with a constant number of rounds, or bpf_loop, mends it.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("socket")
int options_loop(struct __sk_buff *skb)
{
	__u32 at = 0, sum = 0;

#pragma clang loop unroll(disable)
	while (at < skb->len) {
		__u8 kind = 0;

		if (bpf_skb_load_bytes(skb, at, &kind, 1))
			break;
		sum += kind;
		at += kind ? kind : 1;
	}
	return sum ? -1 : 0;
}

char _license[] SEC("license") = "GPL";
