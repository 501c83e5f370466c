// CO-RE against the running kernel: what no program of this type may read, and what every kernel can tell.

#include <linux/types.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

struct __sk_buff;

struct net_device {
	int ifindex;
	unsigned int mtu;
} __attribute__((preserve_access_index));

struct sk_buff {
	unsigned int len;
	unsigned int data_len;
	__u8 pkt_type : 3;
	struct net_device *dev;
} __attribute__((preserve_access_index));

struct sk_buff___ancient {
	int no_field_of_this_name;
} __attribute__((preserve_access_index));

enum bpf_map_type { BPF_MAP_TYPE_RINGBUF = 1 };

__u64 answers[16];

SEC("socket")
int core_kernel(struct __sk_buff *skb)
{
	answers[0] = bpf_core_field_offset(struct sk_buff, len);
	answers[1] = bpf_core_field_offset(struct sk_buff, dev);
	answers[2] = bpf_core_type_size(struct sk_buff);
	answers[3] = bpf_core_enum_value(enum bpf_map_type, BPF_MAP_TYPE_RINGBUF);
	answers[4] = bpf_core_field_exists(struct sk_buff___ancient, no_field_of_this_name);
	answers[5] = bpf_core_type_id_kernel(struct net_device);
	answers[6] = __builtin_preserve_field_info(((struct sk_buff *)0)->pkt_type, BPF_FIELD_BYTE_OFFSET);
	answers[7] = __builtin_preserve_field_info(((struct sk_buff *)0)->pkt_type, BPF_FIELD_LSHIFT_U64);
	answers[8] = bpf_core_field_size(struct net_device, ifindex);
	return 1;
}

char _license[] SEC("license") = "GPL";
