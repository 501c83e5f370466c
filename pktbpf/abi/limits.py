"""Numbers that the kernel fixes (uapi linux/filter.h, linux/bpf.h, include/linux/filter.h)."""

from __future__ import annotations

CLASSIC_MAX_INSNS = 4096  # BPF_MAXINSNS
CLASSIC_MEMWORDS = 16  # BPF_MEMWORDS
MAX_INSNS_PRIVILEGED = 1_000_000  # BPF_COMPLEXITY_LIMIT_INSNS
MAX_INSNS_UNPRIVILEGED = 4096
STACK_SIZE = 512  # MAX_BPF_STACK
MAX_FRAMES = 8  # MAX_CALL_FRAMES
MAX_SUBPROGS = 256
MAX_TAIL_CALLS = 33  # MAX_TAIL_CALL_CNT
MAX_USED_MAPS = 64
OPTMEM_MAX = 131_072  # net.core.optmem_max since Linux 6.8
SKB_CONTEXT_SIZE = 192  # sizeof(struct __sk_buff)
CB_OFFSET, CB_SIZE = 48, 20
REG_COUNT = 11
REG_FP = 10
