# ruff: noqa: E501
"""What changed between kernel versions that a socket filter can notice: one row per rule.

`name` is the attribute of `Profile` that the rules test; `since` the first version that has it; `kept` the older
long-term series whose last stable release has it too. A version always means the last stable release of its series, as
Debian ships it where there is one: 5.10.262, 6.1.192, 6.12.118. `source` says what the row rests on: the source of such
a release, the answers of such a kernel ("asked"), or memory of the history where only a version in between decides.
`approximate` is not empty where what older kernels do is not followed to the end, and says what is not.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """One change. notice: what a socket filter sees of it, as the newer kernel has it. seen_from: the first version that
    has what the rule changes at all."""

    name: str
    since: str
    notice: str
    source: str
    kept: tuple[str, ...] = ()
    approximate: str = ""
    seen_from: str = "5.10"


def version_of(text: str) -> tuple[int, int]:
    """"6.18" as (6, 18)."""
    major, _, minor = text.partition(".")
    return int(major), int(minor)


def holds(rule: Rule, version: str) -> bool:
    """Whether a kernel of that series has the rule."""
    return version in rule.kept or version_of(version) >= version_of(rule.since)


ROWS: tuple[Rule, ...] = (
    # ---- instructions
    Rule("atomics", "5.12", "atomic operations other than a plain addition exist", "5.10, 6.1 verifier.c resolve_pseudo_ldimm64, check_atomic; asked"),
    Rule("function_pointers", "5.13", "a 64-bit immediate may name a function (callbacks), calls may name kernel functions", "5.10, 6.1 verifier.c add_subprog_and_kfunc; since: memory"),
    Rule("file_indexes", "5.14", "64-bit immediates may name maps by their index in an fd array", "5.10, 6.1 verifier.c resolve_pseudo_ldimm64; since: memory"),
    Rule("signed_instructions", "6.6", "sdiv, smod, sign-extending moves and loads, and the unconditional bswap exist", "6.1, 6.12 verifier.c check_alu_op, core.c bpf_opcode_in_insntable; asked"),
    Rule("long_goto", "6.6", "a jump may have a 32-bit distance", "5.10, 6.1 core.c bpf_opcode_in_insntable; asked", ("6.1",)),
    Rule("may_goto", "6.9", "may_goto exists", "asked 6.1, 6.12; since: memory"),
    Rule("empty_may_goto", "6.15", "may_goto may lead to the next instruction", "6.12 verifier.c check_cond_jmp_op; asked; since: memory"),
    Rule("address_spaces", "6.9", "a move with offset 1 is a cast between address spaces (arenas)", "asked 6.1, 6.12; since: memory"),
    Rule("ordered_atomics", "6.15", "load-acquire and store-release exist, in all four sizes", "6.12 verifier.c check_atomic; asked; since: memory"),
    # ---- shape
    Rule("whole_immediates", "6.1", "a jump into the second half of a 64-bit immediate is found by the check of the flow", "5.10, 6.1 verifier.c check_cfg"),
    Rule("loops_anywhere", "6.7", "a loop may be closed by falling through and a function may call itself; before, only a jump might go back", "6.1, 6.12 verifier.c push_insn; asked; since: memory", ("6.6",)),
    Rule("failing_packet_loads", "6.18", "a packet load that fails in a function beside the main one returns 0 from it, and that way is checked", "5.10, 6.1, 6.12 verifier.c check_ld_abs", ("6.1", "6.6", "6.12")),
    # ---- arithmetic
    Rule("ranges", "6.8", "64- and 32-bit ranges of both operands teach each other; compares of two ranges are decided and narrow both; not-equal moves an edge", "6.1, 6.12 verifier.c reg_bounds_sync, is_scalar_branch_taken, regs_refine_cond_op; asked; since: memory"),
    Rule("halves_from_wide", "5.15", "bits of the lower half are learnt from the 64-bit range", "5.10, 6.1 verifier.c __reg_bound_offset; since: memory"),
    Rule("unknown_products", "6.10", "products, OR and XOR with an unknown number have a range", "6.1, 6.12 verifier.c is_safe_to_compute_dst_reg_range; since: memory"),
    Rule("extended_halves", "6.12", "a sign-extended half that is not negative has a zero upper half", "6.12 verifier.c __reg_deduce_mixed_bounds; since: memory"),
    Rule("signed_products", "6.14", "products of negative ranges have a range", "6.12 verifier.c scalar_min_max_mul; asked; since: memory"),
    Rule("wrapping_sums", "6.17", "a sum or difference of which both ends wrap keeps its range", "6.12 verifier.c scalar_min_max_add; asked; since: memory"),
    Rule("negation", "6.17", "the negative of a range has a range", "6.12 verifier.c check_alu_op; asked; since: memory"),
    Rule("crosses_sign", "6.17", "a signed range through zero is cut by the unsigned one where they meet on one side", "6.12 verifier.c __reg64_deduce_bounds; asked; since: memory", ("6.12",)),
    Rule("joined_products", "6.18", "known bits of a product join the sums with and without each unknown bit", "6.12 tnum.c tnum_mul; asked", ()),
    Rule("apart_bits", "6.18", "numbers that differ in a known bit are unequal", "6.12 verifier.c is_scalar_branch_taken; asked", ("6.12",)),
    Rule("tracks_swaps", "6.18", "byte swaps keep what is known of single bits", "6.12 verifier.c check_alu_op; asked", ()),
    Rule("forks_masks", "6.18", "a mask of a value that is 0 or -1 is checked for both", "6.12 verifier.c maybe_fork_scalars; asked", ("6.12",)),
    Rule("single_value", "6.18", "a range and known bits that have one number in common give that number", "6.12 verifier.c reg_bounds_sync; asked", ()),
    Rule("upper_shift", "6.18", "a left shift by 32 keeps the signed range of a negative lower half", "6.12 verifier.c scalar_min_max_lsh; asked", ("6.12",)),
    # ---- copies of a value
    Rule("half_copies", "6.6", "a 32-bit copy of a value below 2**32 stays linked with it", "6.1, 6.12 verifier.c check_alu_op; asked; since: memory"),
    Rule("linked_sums", "6.11", "a copy with a constant added stays linked, by 64-bit additions", "6.1, 6.12 verifier.c adjust_reg_min_max_vals; asked; since: memory"),
    Rule("linked_halves", "6.18", "32-bit additions, subtractions and negative constants keep a copy linked too, and what it learns is settled", "6.12 verifier.c adjust_reg_min_max_vals; asked", ()),
    Rule("six_links", "6.12", "at most six linked registers and slots are narrowed together", "6.1, 6.12 verifier.c collect_linked_regs; since: memory"),
    Rule("live_links", "6.18", "registers that are not read any more are not narrowed", "6.12 verifier.c collect_linked_regs; asked", ()),
    # ---- compares of pointers
    Rule("lifts_null", "6.2", "a nullable pointer equal to one that cannot be null is not null", "6.1, 6.12 verifier.c check_cond_jmp_op; since: memory"),
    Rule("never_null_memory", "6.10", "memory a helper returned, compared with zero, decides the branch", "6.1, 6.12 verifier.c reg_not_null; since: memory"),
    Rule("never_null_maps", "6.15", "a map, compared with zero, decides the branch", "6.12 verifier.c reg_not_null; asked; since: memory", ("6.12",)),
    # ---- stack
    Rule("reads_below", "6.8", "CAP_PERFMON may read below what was written, not only unwritten bytes above it", "5.10, 6.1, 6.12 verifier.c check_stack_slot_within_bounds; asked; since: memory", ("6.1", "6.6")),
    Rule("zero_spills", "6.8", "a spilled zero is kept as a register", "6.1, 6.6, 6.12 verifier.c check_stack_write_fixed_off; since: memory"),
    Rule("unbounded_spills", "6.9", "a spilled scalar is kept whatever its range", "6.1, 6.6, 6.12 verifier.c check_stack_write_fixed_off; asked; since: memory"),
    Rule("narrow_fills", "6.9", "a narrower load from the start of a spilled scalar gives its low bytes; zeros are kept", "6.1, 6.12 verifier.c check_stack_read_fixed_off; since: memory"),
    Rule("overwrites_scalars", "6.10", "without CAP_PERFMON part of a spilled scalar may be overwritten", "6.1, 6.6, 6.12 verifier.c check_stack_write_fixed_off; asked; since: memory"),
    Rule("scrubs_varying", "6.18", "a store at a varying offset leaves plain bytes where spills were", "6.1, 6.12 verifier.c check_stack_write_var_off; asked; since: memory", ("6.12",)),
    Rule("stack_access_kinds", "6.13", "what a helper only reads need not be writable: bounds and contents of the stack differ", "6.12 verifier.c check_stack_range_initialized; asked; since: memory"),
    Rule("small_frames", "6.8", "frames count in steps of 16 bytes, not 32", "6.1, 6.12 verifier.c round_up_stack_depth; since: memory"),
    # ---- memory and context
    Rule("context_immediates", "6.4", "immediates may be stored into the context", "6.1, 6.12 verifier.c do_check; asked; since: memory"),
    # ---- helpers
    Rule("sized_reads", "6.8", "a size that may be zero where zero is not allowed is refused by its range", "6.1, 6.12 verifier.c check_mem_size_reg; asked; since: memory"),
    Rule("bounds_cpu", "6.9", "get_smp_processor_id is known to be below the number of processors", "6.1, 6.12 verifier.c do_refine_retval_range; since: memory"),
    Rule("elides_null", "6.14", "an array lookup with a constant key in range is never null", "6.12 verifier.c check_helper_call; asked; since: memory"),
    Rule("moved_records", "5.17", "a ring-buffer record must be given back as it was handed out", "5.10, 6.1 verifier.c check_func_arg_reg_off; asked; since: memory"),
    Rule("zero_offsets", "6.2", "giving back a moved pointer is EINVAL, before EACCES", "6.1, 6.12 verifier.c check_func_arg_reg_off; asked; since: memory"),
    Rule("callback_rounds", "6.7", "a callback is walked until its rounds converge; before, it was walked once", "6.1, 6.12 verifier.c push_callback_call; since: memory", ("6.6",)),
    Rule("placed_dynptrs", "6.2", "a dynptr must lie at a constant aligned offset; before, only what was written there counted", "6.1, 6.12 verifier.c process_dynptr_func, dynptr_get_spi; asked", (), "stores over a dynptr and dynptrs at varying offsets are judged as from 6.2 on", "5.19"),
    # ---- functions
    Rule("returns_from_tail_calls", "6.18", "a tail call in a function beside the main one may also be that function's end", "asked 6.18 (stable releases); since: memory"),
    # ---- loading
    Rule("sha256_tags", "6.18", "the program's tag is the beginning of a SHA-256, before of a SHA-1", "6.12 core.c bpf_prog_calc_tag; 6.18 asked"),
    # ---- limits
    Rule("complexity_is_size", "6.19", "more than 8192 waiting branches are E2BIG, not EFAULT or ENOMEM", "6.12 verifier.c push_stack; asked", ("6.12",)),
    # ---- without CAP_PERFMON
    Rule("fences", "6.16", "a path that only a mispredicted branch reaches ends at what would refuse it; before, the program was refused", "6.12 verifier.c do_check; asked; since: memory"),
    # ---- wording
    Rule("target_first", "5.15", "a compare looks at its target register first", "5.10, 6.1 verifier.c check_cond_jmp_op; asked; since: memory"),
    Rule("asks_constant", "5.15", "the size of a record is asked to be constant, before to be bounded", "5.10, 6.1 verifier.c check_func_arg; asked; since: memory"),
    Rule("says_scalar", "5.18", "a number is called scalar, not inv", "5.10, 6.1 verifier.c; asked; since: memory"),
    Rule("trusted_pointers", "6.2", "lists of expected kinds name trusted, rcu and dynptr pointers", "6.1, 6.12 verifier.c; asked; since: memory"),
    Rule("plain_bits", "6.8", "known bits print as one number", "6.1, 6.12 tnum.c; asked; since: memory"),
    Rule("offsets_named", "6.8", "a variable-offset stack access names the fixed offset", "6.1, 6.12 verifier.c; asked; since: memory"),
    Rule("names_program_type", "6.10", "a helper that may not be called is said to be one for other program types, before it was unknown", "6.1, 6.12 verifier.c check_helper_call; asked; since: memory"),
    Rule("negative_offsets", "5.15", "a context pointer moved below its start is called negative, before modified", "5.10, 6.1 verifier.c __check_ptr_off_reg; asked; since: memory"),
    Rule("numbers_from_zero", "6.2", "dynptr arguments are numbered from 0", "6.1, 6.12 verifier.c process_dynptr_func; asked"),
    Rule("names_prog_array", "6.17", "a tail call without a program array is told so", "6.12 verifier.c record_func_key; asked; since: memory"),
    Rule("names_target", "6.19", "masking that fails for the kind of a pointer names the target register", "6.12 verifier.c adjust_reg_min_max_vals; asked", ("6.1", "6.12")),
    # ---- pruning
    Rule("precise_links", "6.5", "what is needed precisely of one copy of a value is needed of all; before, paths could be joined wrongly", "5.10, 6.1, 6.12 verifier.c mark_chain_precision; asked 5.10; since: memory", (), "what was joined wrongly is refused"),
    Rule("convergence", "6.18", "states, loops and precision are compared as in 6.18", "6.1, 6.12 verifier.c is_state_visited", (), "how soon paths join follows 6.18, so loops near 1,000,000 instructions may differ"),
)  # fmt: skip

BY_NAME: dict[str, Rule] = {row.name: row for row in ROWS}


def words(rule: Rule) -> str:
    """The rule's name as a person reads it."""
    return rule.name.replace("_", " ")


def ordered() -> list[Rule]:
    """All rows, the oldest change first."""
    return sorted(ROWS, key=lambda rule: version_of(rule.since))
