"""Structures of the kernel that programs may keep references to in maps: those it knows how to give up.

A `__kptr` to any other structure of the kernel is no valid type, so every other name is one of the program's own. From
the destructors that a live 6.18 kernel has registered.
"""

from __future__ import annotations

REFERENCED = frozenset({"task_struct", "cgroup", "bpf_cpumask", "bpf_crypto_ctx"})
