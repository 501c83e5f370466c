"""Which of the kernel's helpers for socket filters run here, and why each of the others does not: the data of the docs.

Derived from the rows of pktbpf.abi.helpers and the numbers that the engine's helper modules state; a test holds that
every row is either run or refused with a reason.
"""

from __future__ import annotations

from typing import NamedTuple

from pktbpf.abi.helpers import ROWS, helper_name

_TASK = "asks about the task that happens to run, which a packet out of a capture has none of"
_MEMORY = "reads memory of the kernel or of a process, which is not there"
_SOCKET = "looks into a kernel socket, which a packet out of a capture has none of"
_COUNTERS = "reads the processor's performance counters, which say nothing about a capture"
_PERCPU = "takes a per-CPU variable of the kernel, which is not there"

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
    _PERCPU: "per_cpu_ptr this_cpu_ptr",
}
REFUSED: dict[str, str] = {name: reason for reason, names in _REASONS.items() for name in names.split()}


class Support(NamedTuple):
    """One line of the list of helpers: its number, its name, why it is refused ("" when it runs)."""

    number: int
    name: str
    reason: str


def why_not(number: int) -> str:
    """The end of a sentence that says why a helper does not run here."""
    return REFUSED.get(helper_name(number), "cannot be called by a socket filter")


def table() -> list[Support]:
    """All helpers that the kernel lets a socket filter name, by number."""
    return [Support(row.id, row.name, REFUSED.get(row.name, "")) for row in ROWS]
