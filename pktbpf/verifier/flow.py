"""Control flow before any value is looked at: what is reachable, what jumps back, and which parts are loops.

In: a Layout whose functions and immediates are checked. It gets the marks where the walk records jumps, compares states
and keeps checkpoints, and the number of each loop. Mirrors check_cfg and compute_scc.
"""

from __future__ import annotations

from pktbpf.verifier.errors import invalid
from pktbpf.verifier.layout import (
    HELPERS_WITH_CALLBACK,
    MAY_GOTO,
    TIMER_SET_CALLBACK,
    Layout,
    is_function_address,
    jump_distance,
)

_NEW, _DISCOVERED, _EXPLORED, _FALL, _BRANCH = 0, 0x10, 0x20, 1, 2


class FlowCheck:
    """Depth-first search over the flow graph that also sets the marks of the layout."""

    def __init__(self, layout: Layout):
        self.layout = layout
        self.insns = layout.insns
        self.state = [_NEW] * len(layout.insns)
        self.stack = [0]

    def run(self) -> None:
        state, stack = self.state, self.stack
        state[0] = _DISCOVERED
        plain = [insn.code & 7 not in (0, 5, 6) for insn in self.insns]
        plain[-1] = False
        while stack:
            index = stack[-1]
            # Straight code leads to the next slot only; going through visit() for it took four times as long.
            if plain[index] and state[index] == _DISCOVERED and state[index + 1] == _NEW:
                state[index], state[index + 1] = _DISCOVERED | _FALL, _DISCOVERED
                stack.append(index + 1)
            elif (plain[index] and state[index] == _DISCOVERED | _FALL) or not self.visit(index):
                state[index] = _EXPLORED
                stack.pop()
        index = 0
        while index < len(self.insns):
            if state[index] != _EXPLORED:
                invalid(f"unreachable insn {index}", insn=index)
            if self.insns[index].code == 0x18 and self.layout.rules.whole_immediates:
                if state[index + 1] != _NEW:
                    invalid(f"jump into the middle of ldimm64 insn {index}", insn=index)
                index += 1
            index += 1

    def push(self, origin: int, target: int, edge: int, loops: bool = False) -> bool:
        """Follow one edge; True when there is more to explore below it. loops: it may go back, in any version."""
        state = self.state
        if state[origin] >= _DISCOVERED | edge:
            return False
        if not 0 <= target < len(self.insns):
            invalid(f"jump out of range from insn {origin} to {target}", insn=origin)
        if edge == _BRANCH:
            self.layout.prune[target] = 1
            self.layout.jump[target] = 1
        if state[target] == _NEW:
            state[origin] = _DISCOVERED | edge
            state[target] = _DISCOVERED
            self.stack.append(target)
            return True
        if state[target] & 0xF0 == _DISCOVERED:
            if self.layout.privilege != "none" and (loops or self.layout.rules.loops_anywhere):
                return False
            invalid(f"back-edge from insn {origin} to {target}", insn=origin)
        state[origin] = _DISCOVERED | edge
        return False

    def visit_call(self, index: int, callee: bool) -> bool:
        layout = self.layout
        width = 2 if self.insns[index].code == 0x18 and layout.rules.whole_immediates else 1
        if self.push(index, index + width, _FALL):
            return True
        layout.prune[index + width] = 1
        layout.jump[index + width] = 1
        if not callee:
            return False
        layout.prune[index] = 1
        return self.push(index, index + self.insns[index].imm + 1, _BRANCH, loops=width == 2)

    def visit(self, index: int) -> bool:
        layout, insn = self.layout, self.insns[index]
        if is_function_address(insn):
            return self.visit_call(index, True)
        if insn.code & 7 not in (5, 6):
            return self.push(index, index + (2 if insn.code == 0x18 and layout.rules.whole_immediates else 1), _FALL)
        operation = insn.code & 0xF0
        if operation == 0x90:
            return False
        if operation == 0x80:
            if insn.src == 0 and insn.imm == TIMER_SET_CALLBACK:
                layout.prune[index] = 1
            kfunc = layout.kfunc(index)
            if kfunc is not None and kfunc.has("next"):
                layout.prune[index] = layout.force[index] = 1
            if insn.src == 0 and insn.imm in HELPERS_WITH_CALLBACK:
                layout.callback[index] = layout.prune[index] = layout.jump[index] = 1
                layout.force[index] = layout.rules.callback_rounds
            return self.visit_call(index, insn.src == 1)
        if operation == 0x00:
            target = index + jump_distance(insn) + 1
            if self.push(index, target, _FALL, loops=True):
                return True
            layout.prune[target] = layout.jump[target] = 1
            return False
        layout.prune[index] = 1
        if insn.code == MAY_GOTO and insn.src == 0:
            layout.force[index] = 1
        if self.push(index, index + 1, _FALL, loops=True):
            return True
        return self.push(index, index + insn.off + 1, _BRANCH, loops=True)


def find_loops(layout: Layout) -> None:
    """Number the strongly connected parts of the flow graph (Tarjan), in the order they complete."""
    if not layout.goes_back:
        return
    size = len(layout.insns)
    order, low = [0] * size, [0] * size
    on_stack = bytearray(size)
    stack: list[int] = []
    counter = 1
    loops = 1
    for root in range(size):
        if order[root]:
            continue
        work: list[tuple[int, int]] = [(root, 0)]
        while work:
            node, step = work.pop()
            if step == 0:
                order[node] = low[node] = counter
                counter += 1
                stack.append(node)
                on_stack[node] = 1
            advanced = False
            following = layout.successors[node] if node < len(layout.successors) else ()
            for position in range(step, len(following)):
                target = following[position]
                if target >= size:
                    continue
                if not order[target]:
                    work += [(node, position + 1), (target, 0)]
                    advanced = True
                    break
                if on_stack[target]:
                    low[node] = min(low[node], low[target])
            if advanced:
                continue
            if low[node] == order[node]:
                members = []
                while True:
                    member = stack.pop()
                    on_stack[member] = 0
                    members.append(member)
                    if member == node:
                        break
                if len(members) > 1 or node in following:
                    for member in members:
                        layout.scc[member] = loops
                    loops += 1
            if work:
                parent = work[-1][0]
                low[parent] = min(low[parent], low[node])
