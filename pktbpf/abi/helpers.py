"""The kernel's helper functions: one row for each that a socket filter may call, and the name of every number.

Source: the prototypes of the kernel's helpers and the enumeration in uapi linux/bpf.h; which of them a socket filter
may call, and with which privilege, is what a live 6.18 kernel answers to BPF_PROG_LOAD. Verifier, engines, assembler
and disassembler use these rows. Names are without the `bpf_` prefix.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Arg:
    """What one argument must be.

    kind: any, ctx, map, key, value, mem, fixed (memory of `size` bytes), size (bytes of the argument before it, not
    zero), size0 (the same, zero allowed), alloc_size0 (a constant: bytes asked for), spin_lock, timer, kptr, func,
    stack, const_str, ringbuf_mem, dynptr, percpu_btf, sock_common, btf, btf_any, btf_sock_common. of: the kernel type
    of a btf argument, the flavour of a dynptr. null: NULL is allowed. uninit: need not be initialised. write: the
    helper writes there. rdonly: the helper only reads. release: gives a reference back.
    """

    kind: str
    of: str = ""
    size: int = 0
    null: bool = False
    uninit: bool = False
    write: bool = False
    rdonly: bool = False
    release: bool = False
    aligned: bool = False


@functools.cache
def _arg(text: str) -> Arg:
    head, *flags = text.split("|")
    kind, _, of = head.partition(":")
    sizes = [int(flag) for flag in flags if flag.isdigit()]
    return Arg(
        kind,
        of,
        sizes[0] if sizes else 0,
        "null" in flags,
        "uninit" in flags,
        "write" in flags,
        "rdonly" in flags,
        "release" in flags,
        "aligned" in flags,
    )


@dataclass(frozen=True, slots=True)
class Helper:
    """One helper that a socket filter may call.

    ret: int, void, map_value_or_null, ringbuf_mem_or_null, dynptr_mem_or_null, mem_or_btf, mem_or_btf_or_null,
    kptr_or_null, btf:TYPE, btf_or_null:TYPE, btf_trusted:TYPE. args: as `arg_types` reads them. privilege: none, cap_bpf
    (CAP_BPF), perfmon (CAP_BPF and CAP_PERFMON). since: first Linux version that lets a socket filter call it ("5.10" for all
    that are older). gpl_only: only for programs with a GPL-compatible license. packet: may get pointers into packets.
    sleeps: only for programs that may sleep, which a socket filter never is.
    """

    id: int
    name: str
    ret: str
    args: str
    privilege: str
    since: str
    gpl_only: bool = False
    packet: bool = False
    sleeps: bool = False

    @property
    def arg_types(self) -> tuple[Arg, ...]:
        """The arguments in order, R1 first; at most five."""
        return tuple(_arg(word) for word in self.args.split())


# One line per helper; kinds and flags of arguments are those of `Arg`, joined with "|".
ROWS: tuple[Helper, ...] = (
    Helper(1, "map_lookup_elem", "map_value_or_null", "map key", "none", "5.10", packet=True),
    Helper(2, "map_update_elem", "int", "map key value any", "none", "5.10", packet=True),
    Helper(3, "map_delete_elem", "int", "map key", "none", "5.10", packet=True),
    Helper(5, "ktime_get_ns", "int", "", "none", "5.10"),
    Helper(6, "trace_printk", "int", "mem|rdonly size", "perfmon", "5.10", gpl_only=True),
    Helper(7, "get_prandom_u32", "int", "", "none", "5.10"),
    Helper(8, "get_smp_processor_id", "int", "", "none", "5.10"),
    Helper(12, "tail_call", "void", "ctx map any", "none", "5.10"),
    Helper(14, "get_current_pid_tgid", "int", "", "none", "6.10"),
    Helper(15, "get_current_uid_gid", "int", "", "none", "6.16"),
    Helper(16, "get_current_comm", "int", "mem|uninit|write size", "perfmon", "6.16"),
    Helper(17, "get_cgroup_classid", "int", "", "cap_bpf", "6.16"),
    Helper(22, "perf_event_read", "int", "map any", "perfmon", "6.16", gpl_only=True),
    Helper(25, "perf_event_output", "int", "ctx map any mem|rdonly size0", "none", "5.10", gpl_only=True),
    Helper(26, "skb_load_bytes", "int", "ctx any mem|uninit|write size", "none", "5.10"),
    Helper(35, "get_current_task", "int", "", "perfmon", "5.10", gpl_only=True),
    Helper(37, "current_task_under_cgroup", "int", "map any", "cap_bpf", "6.16"),
    Helper(42, "get_numa_node_id", "int", "", "none", "5.10"),
    Helper(46, "get_socket_cookie", "int", "ctx", "none", "5.10"),
    Helper(47, "get_socket_uid", "int", "ctx", "none", "5.10"),
    Helper(55, "perf_event_read_value", "int", "map any mem|uninit|write size", "perfmon", "6.16", gpl_only=True),
    Helper(68, "skb_load_bytes_relative", "int", "ctx any mem|uninit|write size any", "none", "5.10"),
    Helper(80, "get_current_cgroup_id", "int", "", "cap_bpf", "6.4"),
    Helper(87, "map_push_elem", "int", "map value any", "none", "5.10", packet=True),
    Helper(88, "map_pop_elem", "int", "map value|uninit|write", "none", "5.10"),
    Helper(89, "map_peek_elem", "int", "map value|uninit|write", "none", "5.10"),
    Helper(93, "spin_lock", "void", "spin_lock", "cap_bpf", "5.10"),
    Helper(94, "spin_unlock", "void", "spin_lock", "cap_bpf", "5.10"),
    Helper(105, "strtol", "int", "mem|rdonly size any fixed|uninit|write|aligned|8", "none", "5.19"),
    Helper(106, "strtoul", "int", "mem|rdonly size any fixed|uninit|write|aligned|8", "none", "5.19"),
    Helper(109, "send_signal", "int", "any", "perfmon", "6.16"),
    Helper(112, "probe_read_user", "int", "mem|uninit|write size0 any", "perfmon", "5.10", gpl_only=True),
    Helper(113, "probe_read_kernel", "int", "mem|uninit|write size0 any", "perfmon", "5.10", gpl_only=True),
    Helper(114, "probe_read_user_str", "int", "mem|uninit|write size0 any", "perfmon", "5.10", gpl_only=True),
    Helper(115, "probe_read_kernel_str", "int", "mem|uninit|write size0 any", "perfmon", "5.10", gpl_only=True),
    Helper(117, "send_signal_thread", "int", "any", "perfmon", "6.16"),
    Helper(118, "jiffies64", "int", "", "cap_bpf", "5.10"),
    Helper(120, "get_ns_current_pid_tgid", "int", "any any mem|uninit|write size", "none", "6.10"),
    Helper(122, "get_netns_cookie", "int", "ctx|null", "none", "6.15"),
    Helper(123, "get_current_ancestor_cgroup_id", "int", "any", "cap_bpf", "6.4"),
    Helper(125, "ktime_get_boot_ns", "int", "", "none", "5.10"),
    Helper(130, "ringbuf_output", "int", "map mem|rdonly size0 any", "none", "5.10"),
    Helper(131, "ringbuf_reserve", "ringbuf_mem_or_null", "map alloc_size0 any", "none", "5.10"),
    Helper(132, "ringbuf_submit", "void", "ringbuf_mem|release any", "none", "5.10"),
    Helper(133, "ringbuf_discard", "void", "ringbuf_mem|release any", "none", "5.10"),
    Helper(134, "ringbuf_query", "int", "map any", "none", "5.10"),
    Helper(136, "skc_to_tcp6_sock", "btf_or_null:tcp6_sock", "btf_sock_common", "perfmon", "5.10"),
    Helper(137, "skc_to_tcp_sock", "btf_or_null:tcp_sock", "btf_sock_common", "perfmon", "5.10"),
    Helper(138, "skc_to_tcp_timewait_sock", "btf_or_null:tcp_timewait_sock", "btf_sock_common", "perfmon", "5.10"),
    Helper(139, "skc_to_tcp_request_sock", "btf_or_null:tcp_request_sock", "btf_sock_common", "perfmon", "5.10"),
    Helper(140, "skc_to_udp6_sock", "btf_or_null:udp6_sock", "btf_sock_common", "perfmon", "5.10"),
    Helper(141, "get_task_stack", "int", "btf:task_struct mem|uninit|write size0 any", "perfmon", "6.16"),
    Helper(148, "copy_from_user", "int", "mem|uninit|write size0 any", "perfmon", "6.16", sleeps=True),
    Helper(149, "snprintf_btf", "int", "mem|write size mem|rdonly size any", "perfmon", "5.10"),
    Helper(153, "per_cpu_ptr", "mem_or_btf_or_null", "percpu_btf any", "cap_bpf", "5.10"),
    Helper(154, "this_cpu_ptr", "mem_or_btf", "percpu_btf", "cap_bpf", "5.10"),
    Helper(156, "task_storage_get", "map_value_or_null", "map btf:task_struct|null value|null any", "cap_bpf", "6.16"),
    Helper(157, "task_storage_delete", "int", "map btf:task_struct|null", "cap_bpf", "6.16"),
    Helper(158, "get_current_task_btf", "btf_trusted:task_struct", "", "perfmon", "5.15", gpl_only=True),
    Helper(160, "ktime_get_coarse_ns", "int", "", "none", "5.11"),
    Helper(164, "for_each_map_elem", "int", "map func stack|null any", "cap_bpf", "5.13"),
    Helper(165, "snprintf", "int", "mem|null|write size0 const_str mem|null|rdonly size0", "perfmon", "5.13", True),
    Helper(169, "timer_init", "int", "timer map any", "cap_bpf", "5.15", gpl_only=True),
    Helper(170, "timer_set_callback", "int", "timer func", "cap_bpf", "5.15", gpl_only=True),
    Helper(171, "timer_start", "int", "timer any any", "cap_bpf", "5.15", gpl_only=True),
    Helper(172, "timer_cancel", "int", "timer", "cap_bpf", "5.15", gpl_only=True),
    Helper(175, "task_pt_regs", "btf:pt_regs", "btf:task_struct", "perfmon", "5.15", gpl_only=True),
    Helper(176, "get_branch_snapshot", "int", "mem|uninit|write size0", "perfmon", "6.16", gpl_only=True),
    Helper(177, "trace_vprintk", "int", "mem|rdonly size mem|null|rdonly size0", "perfmon", "5.16", gpl_only=True),
    Helper(178, "skc_to_unix_sock", "btf_or_null:unix_sock", "btf_sock_common", "perfmon", "5.16"),
    Helper(180, "find_vma", "int", "btf:task_struct any func stack|null any", "perfmon", "6.16"),
    Helper(181, "loop", "int", "any func stack|null any", "cap_bpf", "5.17"),
    Helper(182, "strncmp", "int", "mem|rdonly size const_str", "none", "5.17"),
    Helper(191, "copy_from_user_task", "int", "mem|uninit|write size0 any btf:task_struct any", "perfmon", "6.16", gpl_only=True, sleeps=True),
    Helper(194, "kptr_xchg", "kptr_or_null", "kptr btf_any|null|release", "cap_bpf", "5.19"),
    Helper(195, "map_lookup_percpu_elem", "map_value_or_null", "map key any", "none", "5.19", packet=True),
    Helper(196, "skc_to_mptcp_sock", "btf_or_null:mptcp_sock", "sock_common", "perfmon", "5.19"),
    Helper(197, "dynptr_from_mem", "int", "mem|uninit|write size0 any dynptr:local|uninit|write", "cap_bpf", "5.19"),
    Helper(198, "ringbuf_reserve_dynptr", "int", "map any any dynptr:ringbuf|uninit|write", "cap_bpf", "5.19"),
    Helper(199, "ringbuf_submit_dynptr", "void", "dynptr:ringbuf|release any", "cap_bpf", "5.19"),
    Helper(200, "ringbuf_discard_dynptr", "void", "dynptr:ringbuf|release any", "cap_bpf", "5.19"),
    Helper(201, "dynptr_read", "int", "mem|uninit|write size0 dynptr|rdonly any any", "cap_bpf", "5.19"),
    Helper(202, "dynptr_write", "int", "dynptr|rdonly any mem|rdonly size0 any", "cap_bpf", "5.19"),
    Helper(203, "dynptr_data", "dynptr_mem_or_null", "dynptr|rdonly any alloc_size0", "cap_bpf", "5.19"),
    Helper(208, "ktime_get_tai_ns", "int", "", "none", "6.1"),
    Helper(209, "user_ringbuf_drain", "int", "map func stack|null any", "cap_bpf", "6.1"),
    Helper(210, "cgrp_storage_get", "map_value_or_null", "map btf:cgroup|null value|null any", "cap_bpf", "6.2"),
    Helper(211, "cgrp_storage_delete", "int", "map btf:cgroup|null", "cap_bpf", "6.2"),
)

# Every helper number's name, number 0 first (__BPF_FUNC_MAPPER).
_ALL = """
    unspec map_lookup_elem map_update_elem map_delete_elem probe_read ktime_get_ns trace_printk get_prandom_u32
    get_smp_processor_id skb_store_bytes l3_csum_replace l4_csum_replace tail_call clone_redirect
    get_current_pid_tgid get_current_uid_gid get_current_comm get_cgroup_classid skb_vlan_push skb_vlan_pop
    skb_get_tunnel_key skb_set_tunnel_key perf_event_read redirect get_route_realm perf_event_output
    skb_load_bytes get_stackid csum_diff skb_get_tunnel_opt skb_set_tunnel_opt skb_change_proto skb_change_type
    skb_under_cgroup get_hash_recalc get_current_task probe_write_user current_task_under_cgroup skb_change_tail
    skb_pull_data csum_update set_hash_invalid get_numa_node_id skb_change_head xdp_adjust_head probe_read_str
    get_socket_cookie get_socket_uid set_hash setsockopt skb_adjust_room redirect_map sk_redirect_map
    sock_map_update xdp_adjust_meta perf_event_read_value perf_prog_read_value getsockopt override_return
    sock_ops_cb_flags_set msg_redirect_map msg_apply_bytes msg_cork_bytes msg_pull_data bind xdp_adjust_tail
    skb_get_xfrm_state get_stack skb_load_bytes_relative fib_lookup sock_hash_update msg_redirect_hash
    sk_redirect_hash lwt_push_encap lwt_seg6_store_bytes lwt_seg6_adjust_srh lwt_seg6_action rc_repeat rc_keydown
    skb_cgroup_id get_current_cgroup_id get_local_storage sk_select_reuseport skb_ancestor_cgroup_id sk_lookup_tcp
    sk_lookup_udp sk_release map_push_elem map_pop_elem map_peek_elem msg_push_data msg_pop_data rc_pointer_rel
    spin_lock spin_unlock sk_fullsock tcp_sock skb_ecn_set_ce get_listener_sock skc_lookup_tcp tcp_check_syncookie
    sysctl_get_name sysctl_get_current_value sysctl_get_new_value sysctl_set_new_value strtol strtoul
    sk_storage_get sk_storage_delete send_signal tcp_gen_syncookie skb_output probe_read_user probe_read_kernel
    probe_read_user_str probe_read_kernel_str tcp_send_ack send_signal_thread jiffies64 read_branch_records
    get_ns_current_pid_tgid xdp_output get_netns_cookie get_current_ancestor_cgroup_id sk_assign ktime_get_boot_ns
    seq_printf seq_write sk_cgroup_id sk_ancestor_cgroup_id ringbuf_output ringbuf_reserve ringbuf_submit
    ringbuf_discard ringbuf_query csum_level skc_to_tcp6_sock skc_to_tcp_sock skc_to_tcp_timewait_sock
    skc_to_tcp_request_sock skc_to_udp6_sock get_task_stack load_hdr_opt store_hdr_opt reserve_hdr_opt
    inode_storage_get inode_storage_delete d_path copy_from_user snprintf_btf seq_printf_btf skb_cgroup_classid
    redirect_neigh per_cpu_ptr this_cpu_ptr redirect_peer task_storage_get task_storage_delete
    get_current_task_btf bprm_opts_set ktime_get_coarse_ns ima_inode_hash sock_from_file check_mtu
    for_each_map_elem snprintf sys_bpf btf_find_by_name_kind sys_close timer_init timer_set_callback timer_start
    timer_cancel get_func_ip get_attach_cookie task_pt_regs get_branch_snapshot trace_vprintk skc_to_unix_sock
    kallsyms_lookup_name find_vma loop strncmp get_func_arg get_func_ret get_func_arg_cnt get_retval set_retval
    xdp_get_buff_len xdp_load_bytes xdp_store_bytes copy_from_user_task skb_set_tstamp ima_file_hash kptr_xchg
    map_lookup_percpu_elem skc_to_mptcp_sock dynptr_from_mem ringbuf_reserve_dynptr ringbuf_submit_dynptr
    ringbuf_discard_dynptr dynptr_read dynptr_write dynptr_data tcp_raw_gen_syncookie_ipv4
    tcp_raw_gen_syncookie_ipv6 tcp_raw_check_syncookie_ipv4 tcp_raw_check_syncookie_ipv6 ktime_get_tai_ns
    user_ringbuf_drain cgrp_storage_get cgrp_storage_delete
"""

NAMES: tuple[str, ...] = tuple(_ALL.split())
NUMBERS: dict[str, int] = {name: number for number, name in enumerate(NAMES)}
BY_ID: dict[int, Helper] = {row.id: row for row in ROWS}
BY_NAME: dict[str, Helper] = {row.name: row for row in ROWS}

# How many numbers a version knows, from 5.10 on: the first version with that many.
COUNTS: tuple[tuple[tuple[int, int], int], ...] = (
    ((5, 10), 156), ((5, 11), 163), ((5, 12), 164), ((5, 13), 166), ((5, 14), 169), ((5, 15), 176), ((5, 16), 180),
    ((5, 17), 186), ((5, 18), 194), ((5, 19), 204), ((6, 0), 208), ((6, 1), 210), ((6, 2), 212),
)  # fmt: skip

PRIVILEGES = ("none", "cap_bpf", "perfmon")


def helper_name(number: int) -> str:
    """`map_lookup_elem` for 1; `unknown` for a number that no helper has."""
    return NAMES[number] if 0 <= number < len(NAMES) else "unknown"


def allowed(number: int, privilege: str) -> Helper | None:
    """The helper if a socket filter loaded with this privilege may name it, else None. "root" counts as perfmon."""
    row = BY_ID.get(number)
    if row is None:
        return None
    level = "perfmon" if privilege == "root" else privilege
    return row if PRIVILEGES.index(row.privilege) <= PRIVILEGES.index(level) else None
