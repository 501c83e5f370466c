"""Why a packet matched: dissection by offset, traces, the deciding tests, coverage, and the step debugger."""
