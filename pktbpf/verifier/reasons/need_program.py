"""Needs of a program as a whole: its shape, its loops, its size, its license. No rule here asks for a register's value,
except after a path was walked."""

from __future__ import annotations

import re
from collections.abc import Callable

from pktbpf.abi.helpers import helper_name
from pktbpf.verifier import walk as limits
from pktbpf.verifier.layout import is_call, jump_distance
from pktbpf.verifier.reasons.scene import Need, Remedy, Scene, defines
from pktbpf.verifier.reasons.way import Rounds, branches, fold

Rule = Callable[[Scene, "re.Match[str]"], "Need | None"]


def endless_loop(scene: Scene, match: re.Match[str]) -> Need:
    """A path came back to an instruction with nothing changed."""
    assert scene.walk is not None
    rounds = [step.at for step in scene.path]
    last = len(rounds) - 1
    before = max((at for at in range(last) if rounds[at] == rounds[last]), default=0)
    body = rounds[before:last]
    tests = _leaving(scene, list(dict.fromkeys(index for index in body if _conditional(scene, index))), rounds[last])
    tested = list(dict.fromkeys(reg for index in tests for reg in _operands(scene, index)))
    setters = {reg: [index for index in body if defines(scene.insns, index) >> reg & 1] for reg in tested}
    still = [reg for reg in tested if not setters[reg]]
    count = len(body)
    has = f"one round, {count} instruction{'s' if count != 1 else ''}, leaves everything as it was"
    has += "".join(f"; R{reg} {scene.words(reg)}" for reg in tested)
    changed = sorted({reg for index in body for reg in range(10) if defines(scene.insns, index) >> reg & 1})
    named = still or tested
    return Need(
        "loop_ends", "every round of the loop to change something that ends it", has,
        Remedy("loop", _ending(scene, tests, still, setters, body), tests[-1] if tests else None,
               {"registers": [f"R{reg}" for reg in named], "jump": tests[-1] if tests else body[-1]}),
        tuple(tested[:2]), {"round": body, "tests": tests, "changes": [f"R{reg}" for reg in changed]},
    )  # fmt: skip


def _ending(
    scene: Scene, tests: list[int], still: list[int], setters: dict[int, list[int]], body: list[int]
) -> str:  # fmt: skip
    """What would end the loop. still: registers of its condition that no instruction of a round sets."""
    jump = tests[-1] if tests else body[-1]
    said = f"`{scene.text(jump)}` at {scene.place(jump)}"
    if not setters:
        why = "tests no register" if tests else "goes back, and no test of the loop leads out of it"
        return f"{said} {why}: count the rounds in a register, and leave by a test of it"
    names = [f"r{reg}" for reg in still]
    if still:
        which = f"{' or '.join(names)}" if len(names) > 1 else names[0]
        nothing = "no register in the condition changes: " if len(still) == len(setters) else ""
        change = f"change {which} in every round, by a constant, so that it ends the loop"
        return f"{nothing}no instruction of the loop sets {which}, which {said} tests; {change}"
    anew = {reg: _anew(scene, found) for reg, found in setters.items()}
    told = [f"r{reg} is set anew by `{scene.text(at)}` at {at}" for reg, at in anew.items()]
    held = f"no register in the condition of {said} changes from round to round: {', '.join(told)}"
    return f"{held}; keep its value and change it by a constant, or count the rounds in another register and test that"


def _anew(scene: Scene, setters: list[int]) -> int:
    """Of the instructions that set a register the last that does not calculate with its old value."""
    fresh = [at for at in setters if scene.insns[at].code & 7 not in (4, 7) or scene.insns[at].code & 0xF0 == 0xB0]
    return (fresh or setters)[-1]


def _leaving(scene: Scene, tests: list[int], head: int) -> list[int]:
    """Of the tests of a round those with a way out of the loop; all where none has one of its own."""
    out = []
    for index in tests:
        ways = (index + 1, index + 1 + jump_distance(scene.insns[index]))
        if any(not _leads_to(scene, way, head) for way in ways):
            out.append(index)
    return out or tests


def _leads_to(scene: Scene, start: int, head: int) -> bool:
    """Whether some way through the function leads from one instruction to another."""
    seen: set[int] = set()
    waiting = [start]
    while waiting:
        index = waiting.pop()
        if index == head:
            return True
        if index in seen or not 0 <= index < len(scene.insns):
            continue
        seen.add(index)
        insn = scene.insns[index]
        jumps = insn.code & 7 in (5, 6) and insn.code & 0xF0 not in (0x80, 0x90)
        if jumps:
            waiting.append(index + 1 + jump_distance(insn))
        if insn.code != 0x95 and not (jumps and insn.code & 0xF0 == 0x00):
            waiting.append(index + 1 + (insn.code == 0x18))
    return False


def _conditional(scene: Scene, index: int) -> bool:
    insn = scene.insns[index]
    return insn.code & 7 in (5, 6) and insn.code & 0xF0 not in (0x00, 0x80, 0x90)


def _operands(scene: Scene, index: int) -> tuple[int, ...]:
    insn = scene.insns[index]
    if insn.code & 0xF0 == 0xE0:
        return ()
    return (insn.dst, insn.src) if insn.code & 8 else (insn.dst,)


def too_long(scene: Scene, match: re.Match[str]) -> Need:
    """The budget of instructions, or of branches that wait, was used up."""
    assert scene.walk is not None
    waiting = "jumps" in match[0]
    has = f"more than {limits.MAX_PENDING} wait" if waiting else "they were used up"
    loop = _longest_loop(scene)
    text = "let paths join sooner: mask values, and test one thing at a time"
    data = {}
    if loop is not None:
        times, at = loop
        has += f"; this path alone goes {times} times around the loop at {scene.place(at)}"
        text = f"give the loop at {scene.place(at)} a small constant number of rounds, or use bpf_loop"
        data = {"loop": at, "rounds": times}
    needed = f"fewer than {limits.MAX_PENDING} branches to wait at a time" if waiting else (
        f"all paths together within {limits.MAX_INSNS} checked instructions"
    )  # fmt: skip
    return Need("budget", needed, has, Remedy("budget", text, None, data), (), data)


def _longest_loop(scene: Scene) -> tuple[int, int] | None:
    """(rounds, one instruction of it) for what the path repeated most."""
    assert scene.walk is not None
    rounds = [one for one in fold(branches(scene.walk, scene.path)) if isinstance(one, Rounds)]
    longest = max(rounds, key=lambda one: one.times, default=None)
    if longest is None:
        return None
    first = longest.body[0]
    while isinstance(first, Rounds):
        first = first.body[0]
    return longest.times, first.insn


def unreachable(scene: Scene, match: re.Match[str]) -> Need:
    """Code that no path reaches."""
    at = scene.index
    end = at
    while end + 1 < len(scene.insns) and not _is_target(scene, end + 1, at):
        end += 1
    span = f"{at}" if end == at else f"{at}..{end}"
    return Need("reachable", f"some path to lead to {scene.here}", "none does",
                Remedy("remove", f"remove instructions {span}, or jump there from somewhere", at,
                       {"instructions": [at, end]}))  # fmt: skip


def _is_target(scene: Scene, index: int, after: int) -> bool:
    """Whether a jump from before `after` leads to an instruction."""
    for number, insn in enumerate(scene.insns[:after]):
        jumps = insn.code & 7 in (5, 6) and insn.code & 0xF0 not in (0x80, 0x90)
        distance = jump_distance(insn) if jumps else insn.imm if is_call(insn, 1) else None
        if distance is not None and number + distance + 1 == index:
            return True
    return False


def back_edge(scene: Scene, match: re.Match[str]) -> Need:
    """A jump back, which only privileged programs may have."""
    origin, target = int(match["origin"]), int(match["target"])
    return Need(
        "no_loop", "jumps forward only, without CAP_BPF", f"{scene.place(origin)} jumps back to {target}",
        Remedy("unroll", "unroll the loop, or load the program with CAP_BPF", origin, {"from": origin, "to": target}),
        (), {"from": origin, "to": target},
    )  # fmt: skip


def jump_out(scene: Scene, match: re.Match[str]) -> Need:
    """A jump that leaves its function."""
    origin, target = int(match["origin"]), int(match["target"])
    return Need("jump_target", f"a target inside the function for the jump at {origin}", f"instruction {target}",
                Remedy("jump", "correct the jump's distance", origin, {"from": origin, "to": target}))  # fmt: skip


def runs_off(scene: Scene, match: re.Match[str]) -> Need:
    """The last instruction goes on behind the end."""
    remedy = Remedy("end", f"end the function with exit after instruction {scene.index}", scene.index + 1)
    return Need("end", "the last instruction of a function to be an exit or a jump", scene.text(scene.index), remedy)


def gpl_only(scene: Scene, match: re.Match[str]) -> Need:
    """A helper for GPL programs."""
    what = f"bpf_{helper_name(scene.insn.imm)}" if scene.insn.src == 0 else "a kernel function"
    return Need(
        "license", f"a GPL-compatible license to call {what}", "another license",
        Remedy("license", 'declare a GPL-compatible license: `char _license[] SEC("license") = "GPL";`', None),
    )


def stack_depth(scene: Scene, match: re.Match[str]) -> Need:
    """Nested calls that need more stack than there is."""
    remedy = Remedy("call_stack", "use fewer nested calls or less stack; a map holds large data", scene.index)
    needed = "512 bytes of stack at most for a chain of calls (256 before a tail call)"
    return Need("call_stack", needed, match.string, remedy)


RULES: tuple[tuple[str, Rule], ...] = (
    (r"^infinite loop detected", endless_loop),
    (r"^BPF program is too large|jumps is too complex", too_long),
    (r"^unreachable insn", unreachable),
    (r"^back-edge from insn (?P<origin>\d+) to (?P<target>\d+)", back_edge),
    (r"^jump out of range from insn (?P<origin>\d+) to (?P<target>-?\d+)", jump_out),
    (r"^last insn is not an exit", runs_off),
    (r"^cannot call GPL-restricted function|^cannot call kernel function from non-GPL", gpl_only),
    (r"^combined stack size|^tail_calls are not allowed when call stack", stack_depth),
)
