"""Why a program was refused, worked out after the refusal: nothing here runs while a program is being verified.

`way` finds the instructions of the refused path, `trail` the values on it, `origin` where each value came from, `words`
says what a register holds, `need` (with a module per group of rules) what was demanded and what to do about it.
"""
