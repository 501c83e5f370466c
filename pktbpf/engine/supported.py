"""Which of the kernel's helpers for socket filters run here, and why each of the others does not: the data of the docs.

Derived from the rows of pktbpf.abi.helpers and the numbers that the engine's helper modules state; a test holds that
every row is either run or refused with a reason.
"""

from __future__ import annotations

from typing import NamedTuple

from pktbpf.abi.helpers import ROWS, helper_name
from pktbpf.abi.kfuncs import ROWS as KFUNCS

_TASK = "asks about the task that happens to run, which a packet out of a capture has none of"
_MEMORY = "reads memory of the kernel or of a process, which is not there"
_SOCKET = "looks into a kernel socket, which a packet out of a capture has none of"
_COUNTERS = "reads the processor's performance counters, which say nothing about a capture"

# Names of the helpers that are refused, by reason.
_REASONS: dict[str, str] = {
    _TASK: """get_current_pid_tgid get_current_uid_gid get_current_comm get_cgroup_classid get_current_task
        get_current_task_btf current_task_under_cgroup get_current_cgroup_id get_current_ancestor_cgroup_id send_signal
        send_signal_thread get_ns_current_pid_tgid get_task_stack task_pt_regs task_storage_get task_storage_delete
        cgrp_storage_get cgrp_storage_delete find_vma""",
    _MEMORY: """probe_read_user probe_read_kernel probe_read_user_str probe_read_kernel_str copy_from_user
        copy_from_user_task snprintf_btf""",
    _SOCKET: """skc_to_tcp6_sock skc_to_tcp_sock skc_to_tcp_timewait_sock skc_to_tcp_request_sock skc_to_udp6_sock
        skc_to_unix_sock skc_to_mptcp_sock""",
    _COUNTERS: "perf_event_read perf_event_read_value get_branch_snapshot",
}
REFUSED: dict[str, str] = {name: reason for reason, names in _REASONS.items() for name in names.split()}


_SLEEPS = "may sleep, which a socket filter never does"
_LOCKS = "takes a lock that maps of a socket filter cannot have"
_QUEUE = "runs its callback in a work queue of the kernel"
_DEVICE = "is for programs bound to a network device"
_KFUNC_REASONS: dict[str, str] = {
    _TASK: """bpf_iter_task_new bpf_iter_task_next bpf_iter_task_destroy bpf_iter_task_vma_new bpf_iter_task_vma_next
        bpf_iter_task_vma_destroy bpf_iter_css_new bpf_iter_css_next bpf_iter_css_destroy bpf_iter_css_task_new
        bpf_iter_css_task_next bpf_iter_css_task_destroy bpf_cgroup_read_xattr bpf_task_work_schedule_resume_impl
        bpf_task_work_schedule_signal_impl""",
    _MEMORY: """bpf_cast_to_kern_ctx bpf_rdonly_cast bpf_get_kmem_cache bpf_probe_read_kernel_dynptr
        bpf_probe_read_kernel_str_dynptr bpf_probe_read_user_dynptr bpf_probe_read_user_str_dynptr""",
    _LOCKS: "bpf_res_spin_lock bpf_res_spin_lock_irqsave bpf_res_spin_unlock bpf_res_spin_unlock_irqrestore",
    _QUEUE: "bpf_wq_init bpf_wq_set_callback_impl bpf_wq_start",
    _DEVICE: "bpf_xdp_metadata_rx_hash bpf_xdp_metadata_rx_timestamp bpf_xdp_metadata_rx_vlan_tag",
    "writes to a stream that only the kernel keeps": "bpf_stream_vprintk_impl",
    "is a test of the kernel's own": "bpf_modify_return_test_tp",
    "stands where the compiler found undefined behaviour": "__bpf_trap",
    "gives a slice that may be written, which a socket filter may not": "bpf_dynptr_slice_rdwr",
}
REFUSED_KFUNCS: dict[str, str] = {name: why for why, names in _KFUNC_REASONS.items() for name in names.split()} | {
    row.name: _SLEEPS for row in KFUNCS if row.has("sleeps")
}


def why_not_kfunc(name: str) -> str:
    """The end of a sentence that says why a kernel function does not run here."""
    return REFUSED_KFUNCS.get(name, "cannot be called by a socket filter")


LOADERS = {"none": "anyone", "cap_bpf": "CAP_BPF", "perfmon": "CAP_BPF, CAP_PERFMON"}


class Support(NamedTuple):
    """One line of the list of helpers or kernel functions.

    number: of a helper, None for a kernel function. loader: who may load a program with it. since: first Linux version
    that lets a socket filter call it, "5.10" for all that are older. gpl: only for programs with a GPL-compatible
    license. reason: why it is refused here, "" when it runs.
    """

    number: int | None
    name: str
    loader: str
    since: str
    gpl: bool
    reason: str


def why_not(number: int) -> str:
    """The end of a sentence that says why a helper does not run here."""
    return REFUSED.get(helper_name(number), "cannot be called by a socket filter")


def table() -> list[Support]:
    """All helpers that the kernel lets a socket filter name, by number."""
    return [
        Support(row.id, row.name, LOADERS[row.privilege], row.since, row.gpl_only, REFUSED.get(row.name, ""))
        for row in ROWS
    ]


def kfunc_table() -> list[Support]:
    """All kernel functions that the kernel lets a socket filter name, by name."""
    return [
        Support(None, row.name, LOADERS["cap_bpf"], row.since, False, REFUSED_KFUNCS.get(row.name, ""))
        for row in KFUNCS
    ]
