// CO-RE relocations of all kinds against types that the target has in another layout (core_target.c).

#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include "core_local.h"

__u64 out[64];

#define PUT(value) out[i++ & 63] = (value)

SEC("socket/fields")
int fields(struct __sk_buff *skb)
{
	int i = 0;

	PUT(bpf_core_field_offset(struct packet_state, first));
	PUT(bpf_core_field_offset(struct packet_state, count));
	PUT(bpf_core_field_offset(struct packet_state, name[3]));
	PUT(bpf_core_field_offset(struct packet_state, inside));
	PUT(bpf_core_field_offset(struct packet_state, either));
	PUT(bpf_core_field_offset(struct packet_state, list[2]));
	PUT(bpf_core_field_offset(struct packet_state, points[1].y));
	PUT(bpf_core_field_size(struct packet_state, count));
	PUT(bpf_core_field_size(struct packet_state, list));
	PUT(bpf_core_field_size(struct packet_state, points));
	PUT(bpf_core_field_size(struct packet_state, small));
	PUT(bpf_core_field_exists(struct packet_state, count));
	PUT(bpf_core_field_exists(struct packet_state, gone));
	PUT(bpf_core_field_exists(struct packet_state___old, renamed));
	PUT(bpf_core_field_exists(struct never_there, a));
	PUT(__builtin_preserve_field_info(((struct packet_state *)0)->kind, BPF_FIELD_BYTE_OFFSET));
	PUT(__builtin_preserve_field_info(((struct packet_state *)0)->kind, BPF_FIELD_BYTE_SIZE));
	PUT(__builtin_preserve_field_info(((struct packet_state *)0)->kind, BPF_FIELD_LSHIFT_U64));
	PUT(__builtin_preserve_field_info(((struct packet_state *)0)->kind, BPF_FIELD_RSHIFT_U64));
	PUT(__builtin_preserve_field_info(((struct packet_state *)0)->kind, BPF_FIELD_SIGNED));
	PUT(__builtin_preserve_field_info(((struct packet_state *)0)->depth, BPF_FIELD_LSHIFT_U64));
	PUT(__builtin_preserve_field_info(((struct packet_state *)0)->depth, BPF_FIELD_SIGNED));
	return i;
}

SEC("socket/types")
int types(struct __sk_buff *skb)
{
	int i = 0;

	PUT(bpf_core_type_exists(struct packet_state));
	PUT(bpf_core_type_exists(struct never_there));
	PUT(bpf_core_type_size(struct packet_state));
	PUT(bpf_core_type_size(struct never_there));
	PUT(bpf_core_type_exists(handler_t));
	PUT(bpf_core_type_id_local(struct packet_state));
	PUT(bpf_core_type_id_kernel(struct packet_state));
	PUT(bpf_core_enum_value_exists(enum color, GREEN));
	PUT(bpf_core_enum_value(enum color, GREEN));
	PUT(bpf_core_enum_value_exists(enum missing_enum, MISSING_VALUE));
	return i;
}

SEC("socket/loads")
int loads(struct __sk_buff *skb)
{
	/* the loads stand in a branch that is dead once `gone` is known to be gone */
	struct packet_state *state = (void *)(long)out[0];

	if (!bpf_core_field_exists(struct packet_state, gone))
		return 1;
	return state->count + state->gone + state->points[2].x + (state->small & 1) + (int)(long)state->next;
}

char _license[] SEC("license") = "GPL";
