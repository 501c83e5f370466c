// A kernel function that the program cannot do without: no simulator can mean it.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

extern int bpf_frobnicate(struct __sk_buff *skb) __ksym;

SEC("socket")
int strong(struct __sk_buff *skb)
{
	return bpf_frobnicate(skb);
}

char _license[] SEC("license") = "GPL";
