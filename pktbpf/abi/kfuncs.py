"""Kernel functions that a socket filter may call (kfuncs): one row each, and the names of those that it may not.

Programs name them by the number of their type in the kernel's BTF, which differs from kernel to kernel; here they go by
name. Source: the functions that a live 6.18 kernel marks `bpf_kfunc` in its BTF, with the prototypes there, and what it
answers to BPF_PROG_LOAD of a socket filter that calls each.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter.

    kind: scalar, const (a scalar whose value must be known), ign (anything), ctx, dynptr, iter (on the stack), buf
    (memory whose size the next parameter gives), sz, szk (that size; szk must be known), mem (`size` bytes), str (a
    constant string), irq (interrupt flags on the stack), map, wq, lock, callback, prog (nothing is passed),
    struct (a kernel object `of`). of: the iterator, or the structure. null: may be null. uninit: filled by the call.
    """

    kind: str
    of: str = ""
    null: bool = False
    uninit: bool = False


@functools.cache
def _param(text: str) -> Param:
    head, *flags = text.split("|")
    kind, _, of = head.partition(":")
    return Param(kind, of, "null" in flags, "uninit" in flags)


@dataclass(frozen=True, slots=True)
class Kfunc:
    """One kernel function.

    ret: void, int (any scalar), mem:BYTES (a pointer to that much read-only memory), slice (of a dynptr), null (a
    pointer of no type), struct:NAME. args: as `params` reads them. flags: new, next, destroy (of the iterator `of` of
    the first parameter), null (the result may be), sleeps, trusted (pointers are neither null nor
    stale), rcu (the same, protected by RCU being enough). since: first Linux version where a socket filter may call it.
    """

    name: str
    ret: str
    args: str = ""
    flags: str = ""
    since: str = "6.18"

    @property
    def params(self) -> tuple[Param, ...]:
        """The parameters in order, R1 first; at most five."""
        return tuple(_param(word) for word in self.args.split())

    def has(self, flag: str) -> bool:
        """Whether the flag is set."""
        return flag in self.flags.split()


_SLEEPS = "sleeps"

ROWS: tuple[Kfunc, ...] = (
    Kfunc("__bpf_trap", "void", since="6.17"),
    Kfunc("bpf_arena_alloc_pages", "null", "map ign scalar scalar scalar", _SLEEPS, "6.9"),
    Kfunc("bpf_arena_free_pages", "void", "map ign scalar", _SLEEPS, "6.9"),
    Kfunc("bpf_arena_reserve_pages", "int", "map ign scalar", _SLEEPS, "6.17"),
    Kfunc("bpf_cast_to_kern_ctx", "kern_ctx", "ctx", since="6.2"),
    Kfunc("bpf_cgroup_read_xattr", "int", "struct:cgroup str dynptr", "rcu", "6.17"),
    Kfunc("bpf_copy_from_user_dynptr", "int", "dynptr scalar scalar ign", _SLEEPS, "6.16"),
    Kfunc("bpf_copy_from_user_str", "int", "buf sz ign scalar", _SLEEPS, "6.12"),
    Kfunc("bpf_copy_from_user_str_dynptr", "int", "dynptr scalar scalar ign", _SLEEPS, "6.16"),
    Kfunc("bpf_copy_from_user_task_dynptr", "int", "dynptr scalar scalar ign struct:task_struct", _SLEEPS, "6.16"),
    Kfunc("bpf_copy_from_user_task_str", "int", "buf sz ign struct:task_struct scalar", _SLEEPS, "6.15"),
    Kfunc("bpf_copy_from_user_task_str_dynptr", "int", "dynptr scalar scalar ign struct:task_struct", _SLEEPS, "6.16"),
    Kfunc("bpf_dynptr_adjust", "int", "dynptr scalar scalar", since="6.5"),
    Kfunc("bpf_dynptr_clone", "int", "dynptr dynptr|uninit", since="6.5"),
    Kfunc("bpf_dynptr_copy", "int", "dynptr scalar dynptr scalar scalar", since="6.15"),
    Kfunc("bpf_dynptr_from_skb", "int", "ctx scalar dynptr:skb|uninit", "trusted", "6.4"),
    Kfunc("bpf_dynptr_is_null", "int", "dynptr", since="6.5"),
    Kfunc("bpf_dynptr_is_rdonly", "int", "dynptr", since="6.5"),
    Kfunc("bpf_dynptr_memset", "int", "dynptr scalar scalar scalar", since="6.17"),
    Kfunc("bpf_dynptr_size", "int", "dynptr", since="6.5"),
    Kfunc("bpf_dynptr_slice", "slice", "dynptr scalar buf|null szk", "null", "6.4"),
    Kfunc("bpf_dynptr_slice_rdwr", "slice", "dynptr scalar buf|null szk", "null", "6.4"),
    Kfunc("bpf_get_kmem_cache", "struct:kmem_cache", "scalar", since="6.13"),
    Kfunc("bpf_iter_bits_destroy", "void", "iter:bits", "destroy", "6.11"),
    Kfunc("bpf_iter_bits_new", "int", "iter:bits ign scalar", "new", "6.11"),
    Kfunc("bpf_iter_bits_next", "mem:4", "iter:bits", "next null", "6.11"),
    Kfunc("bpf_iter_css_destroy", "void", "iter:css", "destroy", "6.7"),
    Kfunc("bpf_iter_css_new", "int", "iter:css struct:cgroup_subsys_state scalar", "new trusted", "6.7"),
    Kfunc("bpf_iter_css_next", "struct:cgroup_subsys_state", "iter:css", "next null", "6.7"),
    Kfunc("bpf_iter_css_task_destroy", "void", "iter:css_task", "destroy", "6.7"),
    Kfunc("bpf_iter_css_task_new", "int", "iter:css_task struct:cgroup_subsys_state scalar", "new trusted", "6.7"),
    Kfunc("bpf_iter_css_task_next", "struct:task_struct", "iter:css_task", "next null", "6.7"),
    Kfunc("bpf_iter_dmabuf_destroy", "void", "iter:dmabuf", "destroy sleeps", "6.16"),
    Kfunc("bpf_iter_dmabuf_new", "int", "iter:dmabuf", "new sleeps", "6.16"),
    Kfunc("bpf_iter_dmabuf_next", "struct:dma_buf", "iter:dmabuf", "next null sleeps", "6.16"),
    Kfunc("bpf_iter_kmem_cache_destroy", "void", "iter:kmem_cache", "destroy sleeps", "6.13"),
    Kfunc("bpf_iter_kmem_cache_new", "int", "iter:kmem_cache", "new sleeps", "6.13"),
    Kfunc("bpf_iter_kmem_cache_next", "struct:kmem_cache", "iter:kmem_cache", "next null sleeps", "6.13"),
    Kfunc("bpf_iter_num_destroy", "void", "iter:num", "destroy", "6.4"),
    Kfunc("bpf_iter_num_new", "int", "iter:num scalar scalar", "new", "6.4"),
    Kfunc("bpf_iter_num_next", "mem:4", "iter:num", "next null", "6.4"),
    Kfunc("bpf_iter_task_destroy", "void", "iter:task", "destroy", "6.7"),
    Kfunc("bpf_iter_task_new", "int", "iter:task struct:task_struct|null scalar", "new trusted", "6.7"),
    Kfunc("bpf_iter_task_next", "struct:task_struct", "iter:task", "next null", "6.7"),
    Kfunc("bpf_iter_task_vma_destroy", "void", "iter:task_vma", "destroy", "6.7"),
    Kfunc("bpf_iter_task_vma_new", "int", "iter:task_vma struct:task_struct scalar", "new rcu", "6.7"),
    Kfunc("bpf_iter_task_vma_next", "struct:vm_area_struct", "iter:task_vma", "next null", "6.7"),
    Kfunc("bpf_local_irq_restore", "void", "irq", since="6.14"),
    Kfunc("bpf_local_irq_save", "void", "irq|uninit", since="6.14"),
    Kfunc("bpf_map_sum_elem_count", "int", "struct:bpf_map", "trusted", "6.6"),
    Kfunc("bpf_modify_return_test_tp", "int", "scalar", since="6.9"),
    Kfunc("bpf_preempt_disable", "void", since="6.10"),
    Kfunc("bpf_preempt_enable", "void", since="6.10"),
    Kfunc("bpf_probe_read_kernel_dynptr", "int", "dynptr scalar scalar ign", since="6.16"),
    Kfunc("bpf_probe_read_kernel_str_dynptr", "int", "dynptr scalar scalar ign", since="6.16"),
    Kfunc("bpf_probe_read_user_dynptr", "int", "dynptr scalar scalar ign", since="6.16"),
    Kfunc("bpf_probe_read_user_str_dynptr", "int", "dynptr scalar scalar ign", since="6.16"),
    Kfunc("bpf_rcu_read_lock", "void", since="6.2"),
    Kfunc("bpf_rcu_read_unlock", "void", since="6.2"),
    Kfunc("bpf_rdonly_cast", "rdonly_cast", "ign const", since="6.2"),
    Kfunc("bpf_res_spin_lock", "int", "lock", since="6.15"),
    Kfunc("bpf_res_spin_lock_irqsave", "int", "lock irq|uninit", since="6.15"),
    Kfunc("bpf_res_spin_unlock", "void", "lock", since="6.15"),
    Kfunc("bpf_res_spin_unlock_irqrestore", "void", "lock irq", since="6.15"),
    Kfunc("bpf_strcasecmp", "int", "ign ign"),
    Kfunc("bpf_strchr", "int", "ign scalar", since="6.17"),
    Kfunc("bpf_strchrnul", "int", "ign scalar", since="6.17"),
    Kfunc("bpf_strcmp", "int", "ign ign", since="6.17"),
    Kfunc("bpf_strcspn", "int", "ign ign", since="6.17"),
    Kfunc("bpf_stream_vprintk_impl", "int", "scalar str buf sz prog", "trusted", "6.17"),
    Kfunc("bpf_strlen", "int", "ign", since="6.17"),
    Kfunc("bpf_strnchr", "int", "ign scalar scalar", since="6.17"),
    Kfunc("bpf_strnlen", "int", "ign scalar", since="6.17"),
    Kfunc("bpf_strnstr", "int", "ign ign scalar", since="6.17"),
    Kfunc("bpf_strrchr", "int", "ign scalar", since="6.17"),
    Kfunc("bpf_strspn", "int", "ign ign", since="6.17"),
    Kfunc("bpf_strstr", "int", "ign ign", since="6.17"),
    Kfunc("bpf_task_work_schedule_resume_impl", "int", "struct:task_struct mem map callback prog", "trusted"),
    Kfunc("bpf_task_work_schedule_signal_impl", "int", "struct:task_struct mem map callback prog", "trusted"),
    Kfunc("bpf_wq_init", "int", "wq map scalar", since="6.10"),
    Kfunc("bpf_wq_set_callback_impl", "int", "wq callback scalar prog", since="6.10"),
    Kfunc("bpf_wq_start", "int", "wq scalar", since="6.10"),
    Kfunc("bpf_xdp_metadata_rx_hash", "int", "struct:xdp_md mem mem", since="6.3"),
    Kfunc("bpf_xdp_metadata_rx_timestamp", "int", "struct:xdp_md mem", since="6.3"),
    Kfunc("bpf_xdp_metadata_rx_vlan_tag", "int", "struct:xdp_md mem mem", since="6.8"),
)  # fmt: skip

BY_NAME: dict[str, Kfunc] = {row.name: row for row in ROWS}

# The other functions that a 6.18 kernel marks as kfuncs; a socket filter that calls one is refused with EACCES.
_OTHERS = """
    bbr_cwnd_event bbr_init bbr_main bbr_min_tso_segs bbr_set_state bbr_sndbuf_expand bbr_ssthresh bbr_undo_cwnd
    bpf_cgroup_acquire bpf_cgroup_ancestor bpf_cgroup_from_id bpf_cgroup_release bpf_cpumask_acquire
    bpf_cpumask_and bpf_cpumask_any_and_distribute bpf_cpumask_any_distribute bpf_cpumask_clear
    bpf_cpumask_clear_cpu bpf_cpumask_copy bpf_cpumask_create bpf_cpumask_empty bpf_cpumask_equal
    bpf_cpumask_first bpf_cpumask_first_and bpf_cpumask_first_zero bpf_cpumask_full bpf_cpumask_intersects
    bpf_cpumask_or bpf_cpumask_populate bpf_cpumask_release bpf_cpumask_set_cpu bpf_cpumask_setall
    bpf_cpumask_subset bpf_cpumask_test_and_clear_cpu bpf_cpumask_test_and_set_cpu bpf_cpumask_test_cpu
    bpf_cpumask_weight bpf_cpumask_xor bpf_crypto_ctx_acquire bpf_crypto_ctx_create bpf_crypto_ctx_release
    bpf_crypto_decrypt bpf_crypto_encrypt bpf_ct_change_status bpf_ct_change_timeout bpf_ct_insert_entry
    bpf_ct_release bpf_ct_set_nat_info bpf_ct_set_status bpf_ct_set_timeout bpf_dynptr_from_skb_meta
    bpf_dynptr_from_xdp bpf_fentry_test1 bpf_get_dentry_xattr bpf_get_file_xattr bpf_get_task_exe_file
    bpf_key_put bpf_kfunc_call_memb_release bpf_kfunc_call_test_release bpf_list_back bpf_list_front
    bpf_list_pop_back bpf_list_pop_front bpf_list_push_back_impl bpf_list_push_front_impl bpf_lookup_system_key
    bpf_lookup_user_key bpf_modify_return_test bpf_modify_return_test2 bpf_obj_drop_impl bpf_obj_new_impl
    bpf_path_d_path bpf_percpu_obj_drop_impl bpf_percpu_obj_new_impl bpf_put_file bpf_rbtree_add_impl
    bpf_rbtree_first bpf_rbtree_left bpf_rbtree_remove bpf_rbtree_right bpf_rbtree_root
    bpf_refcount_acquire_impl bpf_remove_dentry_xattr bpf_send_signal_task bpf_session_cookie
    bpf_session_is_return bpf_set_dentry_xattr bpf_sk_assign_tcp_reqsk bpf_skb_ct_alloc bpf_skb_ct_lookup
    bpf_sock_addr_set_sun_path bpf_sock_destroy bpf_sock_ops_enable_tx_tstamp bpf_task_acquire bpf_task_from_pid
    bpf_task_from_vpid bpf_task_get_cgroup1 bpf_task_release bpf_task_under_cgroup bpf_throw bpf_xdp_ct_alloc
    bpf_xdp_ct_lookup bpf_xdp_get_xfrm_state bpf_xdp_pull_data bpf_xdp_xfrm_state_release css_rstat_flush
    css_rstat_updated cubictcp_acked cubictcp_cong_avoid cubictcp_cwnd_event cubictcp_init
    cubictcp_recalc_ssthresh cubictcp_state tcp_cong_avoid_ai tcp_reno_cong_avoid tcp_reno_ssthresh
    tcp_reno_undo_cwnd tcp_slow_start
"""
OTHERS: frozenset[str] = frozenset(_OTHERS.split())

# struct bpf_iter_NAME: how many stack slots of 8 bytes it takes.
ITERATOR_SLOTS: dict[str, int] = {
    "bits": 2, "css": 3, "css_task": 1, "dmabuf": 1, "kmem_cache": 1, "num": 1, "task": 3, "task_vma": 1,
}  # fmt: skip


def exists(name: str) -> bool:
    """Whether the kernel has a kfunc of this name."""
    return name in BY_NAME or name in OTHERS

# How engines name the rows in place of a kernel's number; never leaves the process (see program.INTERNAL_HELPERS).
NUMBER_BASE = 0x7E00_0000
NUMBERS: dict[str, int] = {row.name: NUMBER_BASE + place for place, row in enumerate(ROWS)}
NAMES: dict[int, str] = {number: name for name, number in NUMBERS.items()}
