"""What a call's answer says, so that a branch on it can be told in words: a status, an address, or a number."""

from __future__ import annotations

from pktbpf.abi import kfuncs
from pktbpf.abi.helpers import BY_ID, helper_name
from pktbpf.explain.values import Named
from pktbpf.program import INTERNAL_NAMES

# 0, or the negative of an errno.
_STATUS = frozenset({
    "bpf_map_update_elem", "bpf_map_delete_elem", "bpf_perf_event_output", "bpf_skb_load_bytes",
    "bpf_skb_load_bytes_relative", "bpf_map_push_elem", "bpf_map_pop_elem", "bpf_map_peek_elem",
    "bpf_probe_read_user", "bpf_probe_read_kernel", "bpf_ringbuf_output", "bpf_timer_init",
    "bpf_timer_set_callback", "bpf_timer_start", "bpf_dynptr_from_mem", "bpf_ringbuf_reserve_dynptr",
    "bpf_dynptr_read", "bpf_dynptr_write", "bpf_dynptr_adjust", "bpf_dynptr_clone", "bpf_dynptr_copy",
    "bpf_dynptr_from_skb", "bpf_dynptr_memset", "bpf_iter_num_new", "bpf_iter_bits_new",
})  # fmt: skip


def call_name(number: int) -> str:
    """bpf_map_lookup_elem, or the name of an internal helper."""
    return INTERNAL_NAMES.get(number) or f"bpf_{helper_name(number)}"


def helper_answer(number: int) -> Named:
    """What a helper returned."""
    row = BY_ID.get(number)
    return _answer(call_name(number), row is not None and row.ret.endswith("_or_null"))


def kfunc_answer(name: str) -> Named:
    """What a kernel function returned."""
    row = kfuncs.BY_NAME.get(name)
    return _answer(name, row is not None and row.has("null"))


def _answer(name: str, address: bool) -> Named:
    return Named(f"{name}()", "status" if name in _STATUS else "address" if address else "")
