// Variables of the kernel: a counter of each processor, a structure of each, one that no kernel has.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct rq {
	unsigned int nr_running;
	int cpu;
} __attribute__((preserve_access_index));

extern const int bpf_prog_active __ksym;
extern const struct rq runqueues __ksym __weak;
extern const int no_such_variable __ksym __weak;

SEC("socket")
int active(struct __sk_buff *skb)
{
	const int *mine = bpf_this_cpu_ptr(&bpf_prog_active);

	if (&no_such_variable)
		return 1000;
	return 100 + *mine;
}

SEC("socket")
int processors(struct __sk_buff *skb)
{
	int seen = 0;

	for (int cpu = 0; cpu < 64; cpu++) {
		const struct rq *one = bpf_per_cpu_ptr(&runqueues, cpu);

		if (!one)
			break;
		seen |= 1 << (one->cpu & 31);
	}
	return seen;
}

char _license[] SEC("license") = "GPL";
