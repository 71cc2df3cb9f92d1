"""Putting a mutant's code into functions that are already loaded, whoever holds them and however they are decorated;
and a constant's or a table's new value into the modules that know it by its name."""

from __future__ import annotations

import ast
import gc
import inspect
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

Key = tuple[str, str, bytes]
Swap = list[tuple[FunctionType, CodeType]]
NamedValue = tuple[str, CodeType]


def key(code: CodeType) -> Key:
    """A function's code is known by its file and by the lines and columns of its instructions."""
    return code.co_filename, code.co_qualname, code.co_linetable


def live_functions(files: Iterable[str]) -> dict[Key, list[FunctionType]]:
    wanted = set(files)
    found: dict[Key, list[FunctionType]] = defaultdict(list)
    for each in gc.get_objects():
        if isinstance(each, FunctionType) and each.__code__.co_filename in wanted:
            found[key(each.__code__)].append(each)
    return found


def plan(old: CodeType, new: CodeType, live: dict[Key, list[FunctionType]]) -> Swap | None:
    """What to swap for the change from ``old`` to ``new`` of a module; empty if they are the same program.

    None: it can't be done in place, since the change is in what runs at import.
    """
    changed = _changed(old, new)
    if changed is None:
        return None
    swap = [(function, after) for before, after in changed for function in live.get(key(before), [])]
    can_take = all(len(function.__code__.co_freevars) == len(code.co_freevars) for function, code in swap)
    if changed and (not can_take or not live.get(key(changed[0][0]))):
        return None
    return swap


def _changed(old: CodeType, new: CodeType) -> list[tuple[CodeType, CodeType]] | None:
    if old == new:
        return []
    if old.co_flags & inspect.CO_OPTIMIZED:
        # Functions that were made inside are alive too, if this one was a decorator.
        return [(old, new), *_matching(old, new)]
    inner, other = _inner(old), _inner(new)
    if len(inner) != len(other) or _without_inner(old) != _without_inner(new):
        return None
    changed: list[tuple[CodeType, CodeType]] = []
    for before, after in zip(inner, other, strict=True):
        part = _changed(before, after)
        if part is None:
            return None
        changed += part
    return changed


def _matching(old: CodeType, new: CodeType) -> Iterator[tuple[CodeType, CodeType]]:
    inner, other = _inner(old), _inner(new)
    if len(inner) == len(other):
        for before, after in zip(inner, other, strict=True):
            if before != after:
                yield before, after
                yield from _matching(before, after)


def _inner(code: CodeType) -> list[CodeType]:
    return [each for each in code.co_consts if isinstance(each, CodeType)]


def _without_inner(code: CodeType) -> CodeType:
    return code.replace(co_consts=tuple(None if isinstance(each, CodeType) else each for each in code.co_consts))


# --- constants and tables ---------------------------------------------------------------------------------------------


def named_value(statement: ast.stmt, path: Path) -> NamedValue | None:
    """What a statement of a module makes and the name that it gives to that, if it does no more."""
    match statement:
        case (
            ast.Assign(targets=[ast.Name(id=name)], value=value)
            | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
        ):
            return name, compile(ast.Expression(value), str(path), "eval", dont_inherit=True)
    return None


def put_anew(path: Path, value: NamedValue) -> None:
    """For whoever reads it by its name, in whatever module. What was made of the old one at import still holds that."""
    name, code = value
    modules = [module for module in list(sys.modules.values()) if isinstance(module, ModuleType)]
    (home,) = (vars(module) for module in modules if getattr(module, "__file__", None) == str(path))
    old, new = home[name], eval(code, home)
    for names in map(vars, modules):
        if names.get(name) is old:
            names[name] = new
