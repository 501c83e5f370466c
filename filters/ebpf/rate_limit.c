// Lets through at most `rate` packets a second per IPv4 source, with bursts of `burst`; rejects the rest.
//
// A token bucket per source address in the hash `buckets`, filled by bpf_ktime_get_ns. Tokens are counted in
// thousandths, so that slow rates lose nothing to rounding. Packets that are not IPv4 pass uncounted. When `buckets` is
// full, packets of new sources pass. Set `rate` and `burst` before loading. Byte 0 is the Ethernet header.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define IP_SOURCE 12
#define NS_PER_MS 1000000ULL
#define COST 1000ULL /* thousandths of a token that a packet takes */

const volatile __u64 rate = 100; /* packets a second */
const volatile __u64 burst = 20; /* packets */

__u64 passed;
__u64 dropped;

struct bucket {
	__u64 tokens;
	__u64 filled; /* ns, whole milliseconds after the first packet */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __be32);
	__type(value, struct bucket);
	__uint(max_entries, 10240);
} buckets SEC(".maps");

static __noinline int take(struct bucket *bucket, __u64 now)
{
	__u64 elapsed, most = burst * COST;

	if (!bucket)
		return 0;
	elapsed = (now - bucket->filled) / NS_PER_MS;
	bucket->filled += elapsed * NS_PER_MS;
	/* rate packets a second are `rate` thousandths a millisecond; the product cannot overflow below an hour */
	if (elapsed > 3600000)
		bucket->tokens = most;
	else
		bucket->tokens += elapsed * rate;
	if (bucket->tokens > most)
		bucket->tokens = most;
	if (bucket->tokens < COST)
		return 0;
	bucket->tokens -= COST;
	return 1;
}

SEC("socket")
int rate_limit(struct __sk_buff *skb)
{
	__u64 now = bpf_ktime_get_ns();
	struct bucket fresh = { .tokens = burst * COST - COST, .filled = now };
	struct bucket *bucket;
	__be32 source;

	if (skb->protocol != bpf_htons(ETH_P_IP))
		return -1;
	if (bpf_skb_load_bytes(skb, ETH_HLEN + IP_SOURCE, &source, sizeof(source)) < 0)
		return -1;
	bucket = bpf_map_lookup_elem(&buckets, &source);
	if (!bucket) {
		bpf_map_update_elem(&buckets, &source, &fresh, BPF_NOEXIST);
	} else if (!take(bucket, now)) {
		__sync_fetch_and_add(&dropped, 1);
		return 0;
	}
	__sync_fetch_and_add(&passed, 1);
	return -1;
}

char _license[] SEC("license") = "GPL";
