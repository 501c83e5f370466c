"""What an instruction is: tables and frozen values, data only. Classic rules come from the kernel's uapi
linux/filter.h, extended ones from RFC 9669 and, for what is newer than it, the kernel's uapi linux/bpf.h."""
