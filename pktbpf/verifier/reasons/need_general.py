"""Needs of rules that a sentence explains: pattern of the kernel's line, kind, what is needed, what to do."""

from __future__ import annotations

import re

from pktbpf.verifier.reasons.need_program import Rule
from pktbpf.verifier.reasons.scene import Need, Remedy, Scene

_GENERAL: tuple[tuple[str, str, str, str], ...] = (
    (
        r"are allowed for CAP_BPF and CAP_SYS_ADMIN",
        "privilege", "CAP_BPF for functions inside a program",
        "load it with CAP_BPF, or write the function out where it is called",
    ),
    (
        r"^jump into the middle",
        "jump_target", "no jump into a 64-bit immediate",
        "correct the jump's distance",
    ),
    (
        r"^the call stack of",
        "call_stack", "at most 8 functions on a chain of calls",
        "use fewer nested calls",
    ),
    (
        r"^global function calls are not allowed|while holding a lock|inside bpf_|-ed region",
        "lock", "nothing of this kind while a lock is held",
        "do it before the lock is taken or after it is given back",
    ),
    (
        r"^LD_ABS is|^tail_call is",
        "subprogram_btf", "type information (BTF) that says the function returns int",
        "build with clang -g and let the function return int, or do it in the main function",
    ),
    (
        r"func_info",
        "subprogram_btf", "a func_info record for every function",
        "build the object with clang -g again",
    ),
    (
        r"line_info",
        "line_information", "line records in order, one where each function begins",
        "build the object with clang -g again",
    ),
    (
        r"would lead to reference leak",
        "release", "nothing to be held here",
        "give it back before",
    ),
    (
        r"^invalid access to map value pointer|^direct value offset",
        "direct_value", "an offset inside the map's value",
        "correct the offset of the variable",
    ),
    (
        r"^no direct value access",
        "direct_value", "a map whose values have an address: an ARRAY with one entry",
        "look the value up instead",
    ),
    (
        r"is not pointing to valid bpf_map",
        "map", "a map for the file descriptor",
        "define the map it names",
    ),
    (
        r"total number of maps",
        "map", "at most 64 maps",
        "use fewer maps",
    ),
    (
        r"^At (?:async callback|subprogram)",
        "result", "a number in R0 at the end",
        "set r0 to a number before the end",
    ),
    (
        r"^R0 not a scalar",
        "result", "a number in R0 at the end",
        "set r0 to a number before the end",
    ),
    (
        r"^BPF_(?:ATOMIC|XADD) .* is not allowed",
        "atomic", "the stack, a map value or memory of a helper for an atomic operation",
        "load and store without an atomic operation",
    ),
    (
        r"^invalid atomic operand size|invalid atomic opcode",
        "encoding", "an atomic operation that exists, on 4 or 8 bytes",
        "correct the operation",
    ),
    (
        r"^string is not zero-terminated|does not point to a readonly map|is not a constant address",
        "constant_string", "a string that ends with a zero byte, in a frozen read-only map",
        "use a string literal, kept in .rodata",
    ),
    (
        r"^Invalid format string",
        "format", "a format whose conversions match the arguments",
        "correct the format",
    ),
    (
        r"has to have BTF|has no valid|doesn't point to",
        "special_field", "a field of that kind in the map's value",
        "declare the value's type with that field, and pass its address",
    ),
    (
        r"^leaking pointer from stack",
        "pointer_leak", "numbers in the bytes that are read",
        "write numbers there first",
    ),
    (
        r"is allowed only to CAP_PERFMON",
        "privilege", "CAP_PERFMON to look into kernel structures",
        "load the program with CAP_PERFMON",
    ),
    (
        r"^ldimm64 failed to find the address",
        "kernel_variable", "a symbol whose address the kernel can look up",
        "load it into a kernel that lists addresses of data, too (CONFIG_KALLSYMS_ALL)",
    ),
    (
        r"^extern \(var ksym\)|KIND_VAR or KIND_FUNC|^ldimm64 insn specifies|unable to resolve the size",
        "kernel_variable", "a variable that the kernel's types name, of the type that it is declared with",
        "declare it as the kernel does, or __weak and test for it",
    ),
    (
        r"reserved fields|^unknown opcode|^unknown insn class|invalid bpf_ld_imm64|ld_imm64|ldimm64|"
        r"addr_space_cast|^invalid may_goto|BPF_\w+ uses|fd_array|^invalid module BTF",
        "encoding", "an instruction that exists, unused fields zero",
        "correct the encoding; assemble the instruction again",
    ),
    (
        r"^R\d+ is invalid",
        "encoding", "a register from R0 to R10",
        "correct the register's number",
    ),
    (
        r"kernel (?:module )?function|kfunc|btf_id",
        "kernel_function", "a kernel function that the kernel's BTF names",
        "call a helper instead; kernel functions need the running kernel",
    ),
    (
        r"instructions are none, or more than",
        "budget", "1 to 1000000 instructions, 4096 without CAP_BPF",
        "shorten the program",
    ),
    (
        r"^call to invalid destination|^too many subprograms",
        "call_target", "a function inside the program to call, of at most 256",
        "correct the call's distance",
    ),
    (
        r"^R\d+ invalid \w+ access off=",
        "socket", "a field of struct bpf_sock, whole or as it may be cut, at its own offset",
        "use an offset and a size that struct bpf_sock has",
    ),
    (
        r"is of type \w+ but|may write into memory pointed",
        "argument", "the kernel object that the helper names",
        "pass what a helper for that kind of object returned",
    ),
    (
        r"^timer pointer in R1",
        "timer", "the timer's own map in R2",
        "pass the map that the value with the timer is in",
    ),
    (
        r"have constant offset|kptr isn't referenced",
        "special_field", "the constant place of that field in the value",
        "pass the address of the field itself",
    ),
    (
        r"^more than one arg with ref_obj_id",
        "reference", "at most one acquired object among the arguments",
        "pass them to separate calls",
    ),
    (
        r"^arg \d is an unacquired reference",
        "reference", "a dynptr that bpf_ringbuf_reserve_dynptr filled",
        "reserve it first, and give it back once",
    ),
    (
        r"^callback function not allowed for map",
        "map_type", "a map that bpf_for_each_map_elem can go through",
        "use an array or a hash",
    ),
    (
        r"^helper call might sleep",
        "helper", "a helper that does not sleep",
        "do without it: socket filters cannot sleep",
    ),
    (
        r"^Global function|^Arg#\d type",
        "prototype", "a global function with at most 5 arguments of known types that returns int",
        "make the function static",
    ),
    (
        r"^socket filter progs cannot use bpf_spin_lock|^bpf_struct_ops map",
        "map", "a map that socket filters may use",
        "leave the lock out of the map's value; atomic operations do without",
    ),
    (
        r"^Cannot access kernel 'struct|is (?:ptr_)?\w+ invalid (?:negative access|variable offset)|"
        r"^only read (?:from|is)",
        "kernel_object", "a load from a field of the kernel's structure, in a GPL program",
        "load a field at its own offset",
    ),
    (
        r"^invalid zero-sized read",
        "size", "at least 1 byte",
        "give the map a key and a value, or pass a size",
    ),
    (
        r"should have been in",
        "result", "a result within the range that the caller takes",
        "set r0 accordingly",
    ),
    (
        r"^verifier bug|^allocated_stack",
        "bug", "a verifier without this fault, which the kernel has as well",
        "write the program in another way",
    ),
    (
        r"^$",
        "format", "arguments in multiples of 8 bytes",
        "pass 8 bytes for each conversion of the format",
    ),
    (
        r"iter_\w+ as arg|^css_task_iter",
        "iterator", "an iterator of that kind on the stack: free bytes for _new, a ready one for _next and _destroy",
        "call its _new first, once, and _destroy at the end",
    ),
    (
        r"irq flag as arg|^cannot restore irq",
        "irq", "8 bytes of the stack for the saved flags, restored once and in reverse order",
        "save and restore in pairs",
    ),
    (
        r"^expected an RCU CS|must be a rcu pointer|must be referenced or trusted",
        "trust", "a kernel object that is certain to be alive",
        "use it inside bpf_rcu_read_lock and bpf_rcu_read_unlock, or as it was acquired",
    ),
    (
        r"^unexpected __bpf_trap",
        "trap", "code that a compiler did not find to be wrong",
        "initialise the variable that the compiler warns of",
    ),
    (
        r"does not allow writes to packet data",
        "permission", "to leave the packet's bytes as they are",
        "use bpf_dynptr_slice, which only reads",
    ),
    (
        r"^pointer in R\d isn't map pointer",
        "argument", "a map",
        "pass the map itself",
    ),
    (
        r"^Caller passes invalid args",
        "argument", "arguments that fit the function's prototype",
        "pass what the prototype says, or make the function static",
    ),
    (
        r"^BPF_ST stores into R\d+ ctx",
        "context", "a register as the source of a store to the context, on this kernel",
        "put the constant into a register first",
    ),
    (
        r"^map type \w+ (?:came with|is none of)",
        "map_type", "a kind of map that this kernel has",
        "use another kind of map, or a newer kernel",
    ),
    (
        r"access percpu memory",
        "kernel_object", "one processor's copy of the variable",
        "ask bpf_this_cpu_ptr or bpf_per_cpu_ptr for it first",
    ),
    (
        r"access user memory|^Type '|^access beyond (?:the end of|struct)|^cannot access ptr member|"
        r"doesn't have (?:size|field at)|beyond struct",
        "kernel_object", "a load of one whole field of the kernel's structure",
        "load a field at its own offset, with its own size",
    ),
    (
        r"^nonzero insn_off",
        "types", "type information that begins with the main function",
        "give func_info for every function, in order",
    ),
    (
        r"^invalid read from stack",
        "stack_initialised", "bytes of the stack that hold plain data",
        "read other bytes: these belong to a dynptr, an iterator or saved flags",
    ),
    (
        r"^cannot be judged offline",
        "unknown", "something that only a running kernel knows",
        "ask a live kernel, or accept the program explicitly with pktbpf.trust",
    ),
)  # fmt: skip


def _rule(kind: str, requires: str, text: str) -> Rule:
    def rule(scene: Scene, match: re.Match[str]) -> Need:
        return Need(kind, requires, "", Remedy(kind, text, None))

    return rule


RULES = tuple((pattern, _rule(kind, requires, text)) for pattern, kind, requires, text in _GENERAL)
