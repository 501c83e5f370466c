// Section names: three that mean socket filter, two programs in one section, and one of another type.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("socket_filter")
int by_long_name(struct __sk_buff *skb)
{
	return skb->len;
}

SEC("filter")
int by_short_name(struct __sk_buff *skb)
{
	return 1;
}

SEC("socket1")
int numbered(struct __sk_buff *skb)
{
	return 2;
}

SEC("?socket/optional")
int optional(struct __sk_buff *skb)
{
	return 3;
}

SEC("socket_filter")
int same_section(struct __sk_buff *skb)
{
	return 4;
}

SEC("xdp")
int other_type(struct xdp_md *ctx)
{
	return 2;
}
