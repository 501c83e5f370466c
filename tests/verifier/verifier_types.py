"""BTF for generated programs: a small writer, and one table with the value types and functions that generators name.

`TABLE` is what BPF_BTF_LOAD gets; `VALUES` names the types of map values in it, `FUNCTIONS` its functions. FunctionSpec
describes one: linkage, result, arguments as words such as "int", "skb*" or "pair*", and tags of arguments.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST = range(1, 11)
FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG = range(12, 19)
LINKAGES = ("static", "global", "extern")


class Types:
    """Type records in the order they are made; every method gives the new type's id."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.strings = bytearray(b"\0")
        self.places: dict[str, int] = {"": 0}
        self.ids: dict[tuple[object, ...], int] = {}

    def name(self, text: str) -> int:
        if text not in self.places:
            self.places[text] = len(self.strings)
            self.strings += text.encode() + b"\0"
        return self.places[text]

    def add(self, kind: int, name: str = "", size: int = 0, count: int = 0, tail: bytes = b"") -> int:
        """One record; `size` is the size, or the type that the record refers to. Equal records are made once."""
        key = (kind, name, size, count, tail)
        if key not in self.ids or kind in (STRUCT, UNION):
            head = struct.pack("<III", self.name(name), kind << 24 | count, size)
            self.records.append(head + tail)
            self.ids[key] = len(self.records)
        return self.ids[key]

    def integer(self, name: str, size: int, encoding: int = 0) -> int:
        return self.add(INT, name, size, tail=struct.pack("<I", encoding << 24 | 8 * size))

    def pointer(self, to: int) -> int:
        return self.add(PTR, size=to)

    def array(self, of: int, count: int) -> int:
        return self.add(ARRAY, tail=struct.pack("<III", of, self.integer("int", 4, 1), count))

    def composite(self, name: str, size: int, *members: tuple[str, int, int], kind: int = STRUCT) -> int:
        """members: (name, type, byte offset)"""
        tail = b"".join(struct.pack("<III", self.name(field), of, 8 * offset) for field, of, offset in members)
        return self.add(kind, name, size, len(members), tail)

    def tagged(self, tag: str, to: int) -> int:
        """A pointer to `to` behind a type tag, as `struct task_struct __kptr *`."""
        return self.pointer(self.add(TYPE_TAG, tag, to))

    def function(self, name: str, linkage: str, returns: int, args: list[int], tags: list[tuple[int, str]]) -> int:
        """A FUNC of its own prototype; tags: (argument, text)."""
        tail = b"".join(struct.pack("<II", self.name(f"a{n}"), of) for n, of in enumerate(args))
        found = self.add(FUNC, name, self.add(FUNC_PROTO, size=returns, count=len(args), tail=tail),
                         LINKAGES.index(linkage))  # fmt: skip
        for argument, text in tags:
            self.add(DECL_TAG, text, found, tail=struct.pack("<i", argument))
        return found

    def blob(self) -> bytes:
        """As BPF_BTF_LOAD takes it."""
        body, text = b"".join(self.records), bytes(self.strings)
        return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(body), len(body), len(text)) + body + text


@dataclass(frozen=True)
class FunctionSpec:
    """A function of TABLE."""

    name: str
    linkage: str = "static"
    returns: str = "int"
    args: tuple[str, ...] = ()
    tags: tuple[tuple[int, str], ...] = ()


def _words(types: Types) -> dict[str, int]:
    """Types by the words that function specs use; `word*` is a pointer to it."""
    words = {"void": 0}
    words["int"] = types.integer("int", 4, 1)
    words["u64"] = types.integer("u64", 8)
    words["u32"] = types.integer("u32", 4)
    words["char"] = types.integer("char", 1, 2)
    words["bool"] = types.integer("_Bool", 1, 4)
    words["wide"] = types.integer("__int128", 16)
    words["enum"] = types.add(ENUM, "choice", 4, 1, struct.pack("<Ii", types.name("ONE"), 1))
    words["size_t"] = types.add(TYPEDEF, "size_t", words["u64"])
    words["float"] = types.add(FLOAT, "float", 4)
    words["skb"] = types.composite("__sk_buff", 8, ("len", words["u32"], 0))
    words["pair"] = types.composite("pair", 16, ("a", words["u64"], 0), ("b", words["u64"], 8))
    words["big"] = types.composite("big", 64, ("a", types.array(words["u64"], 8), 0))
    words["hollow"] = types.composite("hollow", 0)
    words["either"] = types.composite("either", 8, ("a", words["u64"], 0), ("b", words["u32"], 0), kind=UNION)
    words["numbers"] = types.array(words["int"], 5)
    words["unknown"] = types.add(FWD, "unknown", 0)
    words["dynptr"] = types.composite("bpf_dynptr", 16, ("a", words["u64"], 0), ("b", words["u64"], 8))
    words["task"] = types.composite("task_struct", 8, ("a", words["u64"], 0))
    words["constpair"] = types.add(CONST, size=words["pair"])
    words["constskb"] = types.add(CONST, size=words["skb"])
    words["callback"] = types.add(FUNC_PROTO, size=words["int"], tail=b"")
    words["int*"] = types.pointer(words["int"])
    words["pair_t*"] = types.add(TYPEDEF, "pair_p", types.pointer(words["pair"]))
    return words


def _pointer(types: Types, words: dict[str, int], word: str) -> int:
    if word not in words:
        words[word] = types.pointer(_pointer(types, words, word.removesuffix("*")))
    return words[word]


_ARGUMENTS = (
    ("int",), ("u64", "int"), ("skb*",), ("skb*", "int"), ("int*",), ("pair*",), ("pair*", "int"), ("int", "big*"),
    ("constpair*", "size_t"), ("char*", "int"), ("void*",), ("pair**",), ("enum", "bool"), ("enum*",), ("either*",),
    ("numbers*",), ("pair",), ("float",), ("unknown*",), ("callback*",), ("hollow*",), ("dynptr*",), ("wide",),
    ("constskb*", "pair*"), ("pair_t*",), (), ("int",) * 5, ("int",) * 6, ("float*",),
)  # fmt: skip
_TAGS = (
    (("pair*",), ((0, "arg:nonnull"),)), (("skb*",), ((0, "arg:ctx"),)), (("void*",), ((0, "arg:ctx"),)),
    (("pair*",), ((0, "arg:ctx"),)), (("int*", "pair*"), ((0, "arg:nonnull"), (1, "arg:nonnull"))),
    (("pair*",), ((0, "arg:nullable"),)), (("int",), ((0, "arg:nonnull"),)), (("int",), ((0, "arg:ctx"),)),
    (("pair*",), ((0, "arg:other"),)), (("pair*",), ((0, "other"),)), (("pair*",), ((0, "arg:arena"),)),
    (("pair*",), ((0, "arg:arena"), (0, "arg:nonnull"))), (("skb*",), ((0, "arg:ctx"), (0, "arg:nonnull"))),
    (("skb*",), ((0, "arg:nonnull"),)), (("dynptr*",), ((0, "arg:nonnull"),)), (("dynptr*",), ((0, "arg:ctx"),)),
    (("pair*",), ((0, "arg:nonnull"), (0, "arg:nullable"))), (("pair*",), ((0, "arg:untrusted"),)),
    (("pair**", "int"), ((1, "arg:nonnull"),)), (("int*",), ((0, "arg:untrusted"),)),
    (("int*",), ((0, "arg:untrusted"), (0, "arg:nonnull"))), (("skb*", "pair*"), ((1, "arg:nonnull"),)),
    (("task*",), ((0, "arg:trusted"),)), (("task*",), ((0, "arg:trusted"), (0, "arg:nullable"))),
    (("task*",), ((0, "arg:untrusted"),)), (("pair*",), ((0, "arg:trusted"),)), (("void*",), ((0, "arg:untrusted"),)),
    (("task*",), ((0, "arg:trusted"), (0, "arg:nonnull"))),
)  # fmt: skip
_RESULTS = ("void", "u64", "char", "bool", "enum", "size_t", "pair", "pair*", "float", "wide", "int*")


def _specs() -> dict[str, FunctionSpec]:
    found = [FunctionSpec("main", args=("skb*",)), FunctionSpec("main_global", "global", args=("skb*",)),
             FunctionSpec("main_odd", "global", args=("int", "int"))]  # fmt: skip
    for linkage in ("static", "global"):
        short = linkage[0]
        found += [FunctionSpec(f"{short}_args{n}", linkage, args=args) for n, args in enumerate(_ARGUMENTS)]
        found += [FunctionSpec(f"{short}_tags{n}", linkage, "int", *row) for n, row in enumerate(_TAGS)]
        found += [FunctionSpec(f"{short}_gives{n}", linkage, gives, ("int",)) for n, gives in enumerate(_RESULTS)]
    return {spec.name: spec for spec in found}


SPECS = _specs()


def _values(types: Types, words: dict[str, int]) -> dict[str, int]:
    """Types of map values: plain ones, and those with fields that only helpers may touch."""
    u64, u32 = words["u64"], words["u32"]
    lock = types.composite("bpf_spin_lock", 4, ("val", u32, 0))
    strong = types.composite("bpf_res_spin_lock", 4, ("val", u32, 0))
    timer = types.composite("bpf_timer", 16, ("a", u64, 0), ("b", u64, 8))
    work = types.composite("bpf_wq", 16, ("a", u64, 0), ("b", u64, 8))
    task, group = words["task"], types.composite("cgroup", 8, ("a", u64, 0))
    skb = types.composite("sk_buff", 8, ("a", u64, 0))
    own = types.composite("own_object", 48, ("a", u64, 0), ("b", u32, 8), ("c", types.pointer(words["pair"]), 16),
                          ("d", words["pair"], 24), ("e", types.pointer(u64), 40))
    refs, weak, parts = "kptr", "kptr_untrusted", "percpu_kptr"
    return {
        "plain": words["pair"],
        "timed": types.composite("timed", 32, ("a", u64, 0), ("t", timer, 8), ("b", u64, 24)),
        "timed_first": types.composite("timed_first", 24, ("t", timer, 0), ("b", u64, 16)),
        "locked": types.composite("locked", 16, ("a", u64, 0), ("l", lock, 8), ("b", u32, 12)),
        "strongly": types.composite("strongly", 16, ("a", u64, 0), ("l", strong, 8)),
        "working": types.composite("working", 24, ("a", u64, 0), ("w", work, 8)),
        "kernel": types.composite("kernel", 32, ("a", u64, 0), ("weak", types.tagged(weak, task), 8),
                                  ("ref", types.tagged(refs, task), 16), ("b", u64, 24)),
        "mixed": types.composite("mixed", 40, ("ref", types.tagged(refs, group), 0), ("t", timer, 8),
                                 ("weak", types.tagged(weak, skb), 24), ("b", u64, 32)),
        "own": types.composite("own", 32, ("ref", types.tagged(refs, own), 0), ("weak", types.tagged(weak, own), 8),
                               ("parts", types.tagged(parts, own), 16), ("b", u64, 24)),
        "many": types.composite("many", 32, ("a", types.array(types.tagged(refs, task), 3), 0), ("b", u64, 24)),
    }  # fmt: skip


def _table() -> tuple[bytes, dict[str, int], dict[str, int]]:
    types = Types()
    words = _words(types)
    values = _values(types, words)
    functions = {
        spec.name: types.function(
            spec.name, spec.linkage, _pointer(types, words, spec.returns),
            [_pointer(types, words, word) for word in spec.args], list(spec.tags))
        for spec in SPECS.values()
    }  # fmt: skip
    return types.blob(), values, functions


TABLE, VALUES, FUNCTIONS = _table()
