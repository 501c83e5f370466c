// Weak externs that nothing defines, and values of the kernel configuration.

#include <linux/bpf.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>

extern int LINUX_KERNEL_VERSION __kconfig;
extern bool CONFIG_NO_SUCH_OPTION_ANYWHERE __kconfig __weak;
extern enum libbpf_tristate CONFIG_NET __kconfig __weak;

extern const void no_such_symbol __ksym __weak;
extern void no_such_function(void) __ksym __weak;

SEC("socket")
int externs(struct __sk_buff *skb)
{
	if (&no_such_symbol)
		return 1;
	if (no_such_function)
		no_such_function();
	if (CONFIG_NO_SUCH_OPTION_ANYWHERE)
		return 2;
	return LINUX_KERNEL_VERSION + CONFIG_NET;
}

char _license[] SEC("license") = "GPL";
