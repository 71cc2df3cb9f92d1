"""The mutants of a module: one small change of its source each.

Left out, since no test should care: log calls, docstrings, annotations, asserts (also `strict=` of zip), what
`dataclass` is told, and strings with a space in them: prose for people, or SQL, whose words these operators don't know.
"""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

from tests.mutation.swapping import NamedValue, named_value

PACKAGE = Path(__file__).resolve().parents[2] / "daemon" / "holdpay"
WIDTH = 100
"""As much of the statement around a change is shown as fits."""

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
UNCHANGED_CALLS = {"cast", "TypeVar", "ParamSpec", "NewType", "dataclass", "get_logger"}
UNCHANGED_FIELDS = {"annotation", "returns", "ctx", "type_comment", "bases", "format_spec"}
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the shared tree a node hangs. ``index`` None: the field holds the node itself."""

    parent: ast.AST
    field: str
    index: int | None

    def get(self) -> ast.AST:
        held = getattr(self.parent, self.field)
        node: ast.AST = held if self.index is None else held[self.index]
        return node

    def put(self, node: ast.AST | None) -> None:
        """None takes the node out of its list."""
        if self.index is None:
            setattr(self.parent, self.field, node)
        elif node is None:
            del getattr(self.parent, self.field)[self.index]
        else:
            getattr(self.parent, self.field)[self.index] = node

    def restore(self, node: ast.AST, taken_out: bool) -> None:
        if taken_out:
            getattr(self.parent, self.field).insert(self.index, node)
        else:
            self.put(node)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change. A test concerns it if it ran any of the lines ``first_line`` to ``last_line``."""

    path: Path
    line: int
    first_line: int
    last_line: int
    function: str
    operator: str
    before: str
    after: str
    tree: ast.Module
    place: Place
    replacement: ast.AST | None

    @property
    def label(self) -> str:
        """The file as a reader knows it."""
        return str(self.path.relative_to(PACKAGE)) if self.path.is_relative_to(PACKAGE) else self.path.name

    def __str__(self) -> str:
        return f"{self.label}:{self.line} {self.function} {self.operator}: {self.before} -> {self.after}"

    def compile(self) -> CodeType:
        """The whole module with this change in it."""
        with self._changed():
            return compile(self.tree, str(self.path), "exec", dont_inherit=True)

    def named_value(self) -> NamedValue | None:
        """The constant, or the table, of the module that this changes. None: it changes something else."""
        with self._changed():
            around = (each for each in self.tree.body if each.lineno <= self.line <= (each.end_lineno or 0))
            return next((named_value(each, self.path) for each in around), None)

    @contextlib.contextmanager
    def _changed(self) -> Iterator[None]:
        node = self.place.get()
        self.place.put(self.replacement)
        try:
            yield
        finally:
            self.place.restore(node, self.replacement is None)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def mutants(path: Path) -> list[Mutant]:
    """All mutants of a file, in the order of its lines."""
    tree = parse(path)
    return sorted(_Walk(path, tree).walk(tree, []), key=lambda mutant: mutant.line)


class _Walk:
    def __init__(self, path: Path, tree: ast.Module) -> None:
        self._path = path
        self._tree = tree

    def walk(self, node: ast.AST, above: list[Place]) -> Iterator[Mutant]:
        """``above``: the places from the module down to the node."""
        if above:
            yield from self._mutate(node, above)
        for place in _children(node):
            child = place.get()
            if not _is_left_out(child, place):
                yield from self.walk(child, [*above, place])

    def _mutate(self, node: ast.AST, above: list[Place]) -> Iterator[Mutant]:
        for operator, replacement in _replacements(node, above):
            if replacement is not None:
                ast.fix_missing_locations(ast.copy_location(replacement, node))
            yield self._mutant(node, above, operator, replacement)

    def _mutant(self, node: ast.AST, above: list[Place], operator: str, replacement: ast.AST | None) -> Mutant:
        place = above[-1]
        around, first_line, last_line = _around(node, above)
        before = _text(around)
        place.put(replacement)
        after = _text(around) if around is not node else "" if replacement is None else _text(replacement)
        place.restore(node, replacement is None)
        line = getattr(node, "lineno", first_line)
        scope = _scope(above)
        return Mutant(
            self._path, line, first_line, last_line, scope, operator, before, after, self._tree, place, replacement
        )


def _text(node: ast.AST) -> str:
    return " ".join(ast.unparse(node).split())


def _children(node: ast.AST) -> Iterator[Place]:
    for field, value in ast.iter_fields(node):
        if field in UNCHANGED_FIELDS:
            continue
        if isinstance(value, list):
            yield from (Place(node, field, at) for at, each in enumerate(value) if isinstance(each, ast.AST))
        elif isinstance(value, ast.AST):
            yield Place(node, field, None)


def _is_left_out(node: ast.AST, place: Place) -> bool:
    match node:
        case ast.Assert() | ast.Import() | ast.ImportFrom():
            return True
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name) | ast.Attribute(attr=name))) if _is_log(name):
            return True
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in UNCHANGED_CALLS:
            return True
        case ast.Expr(value=value):
            return _is_left_out(value, place)
        case ast.keyword(arg="strict"):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Constant():
            return isinstance(place.parent, ast.JoinedStr)
    return False


def _is_log(name: str) -> bool:
    return name.lstrip("_") in {"log", "logger"}


def _around(node: ast.AST, above: list[Place]) -> tuple[ast.AST, int, int]:
    """The largest expression or simple statement around a node that fits, and the lines of its statement's head."""
    shown = node
    still_fits = True
    for place in reversed(above):
        each = place.get()
        if isinstance(each, ast.stmt):
            is_simple = not hasattr(each, "body")
            if is_simple and still_fits and len(_text(each)) <= WIDTH:
                shown = each
            return shown, *_head(each)
        is_expression = isinstance(each, ast.expr) and not isinstance(place.parent, ast.JoinedStr | ast.FormattedValue)
        still_fits = still_fits and (not isinstance(each, ast.expr) or len(_text(each)) <= WIDTH)
        if is_expression and still_fits:
            shown = each
    raise AssertionError("a node outside any statement")


def _head(statement: ast.stmt) -> tuple[int, int]:
    body = getattr(statement, "body", None)
    if not body:
        return statement.lineno, statement.end_lineno or statement.lineno
    return statement.lineno, max(statement.lineno, body[0].lineno - 1)


def _scope(above: list[Place]) -> str:
    """The class and the outermost function that a node is in."""
    names: list[str] = []
    for place in above[:-1]:
        node = place.get()
        if isinstance(node, SCOPES):
            names.append(node.name)
            if not isinstance(node, ast.ClassDef):
                break
    return ".".join(names) or "<module>"


def _is_in_function(above: list[Place]) -> bool:
    return any(isinstance(place.parent, ast.FunctionDef | ast.AsyncFunctionDef) for place in above)


def _replacements(node: ast.AST, above: list[Place]) -> Iterator[tuple[str, ast.AST | None]]:
    if isinstance(node, ast.stmt):
        yield from _statements(node, above)
    elif isinstance(node, ast.Constant):
        yield from _constants(node)
    elif isinstance(node, ast.expr):
        yield from _expressions(node, above[-1])
    elif isinstance(node, ast.keyword) and _is_replace(above[-1].parent) and node.arg is not None:
        yield "keyword", None


def _is_replace(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "replace"


def _statements(node: ast.stmt, above: list[Place]) -> Iterator[tuple[str, ast.AST | None]]:
    match node:
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield "return", ast.Return(ast.Constant(None))
        case ast.Expr() | ast.Assign() | ast.AugAssign() | ast.AnnAssign(value=ast.expr()) | ast.Delete() | ast.Raise():
            if _is_in_function(above) or isinstance(node, ast.Expr):
                yield "statement", ast.Pass()
        case ast.Break():
            yield "loop", ast.Continue()
        case ast.Continue():
            yield "loop", ast.Break()
    if isinstance(node, ast.AugAssign) and type(node.op) in ARITHMETIC:
        yield "arithmetic", ast.AugAssign(node.target, ARITHMETIC[type(node.op)](), node.value)


def _constants(node: ast.Constant) -> Iterator[tuple[str, ast.AST | None]]:
    match node.value:
        case bool() as value:
            yield "constant", ast.Constant(not value)
        case int() | float() as value:
            yield "constant", ast.Constant(value + 1)
            yield "constant", ast.Constant(value - 1)
        case str() as value if " " not in value:
            yield "constant", ast.Constant("" if value else "x")
        case bytes() as value:
            yield "constant", ast.Constant(b"" if value else b"x")


def _expressions(node: ast.expr, place: Place) -> Iterator[tuple[str, ast.AST | None]]:
    if place.field in {"test", "ifs"} and not _is_negated_below(node):
        yield "condition", ast.UnaryOp(ast.Not(), node)
    match node:
        case ast.Compare():
            for at, op in enumerate(node.ops):
                for other in COMPARISONS[type(op)]:
                    yield (
                        "comparison",
                        ast.Compare(node.left, [*node.ops[:at], other(), *node.ops[at + 1 :]], node.comparators),
                    )
        case ast.BoolOp():
            yield "boolean", ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield "unary", node.operand
        case ast.BinOp() if type(node.op) in ARITHMETIC:
            yield "arithmetic", ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right)
        case ast.Set() if len(node.elts) > 1 or isinstance(place.parent, ast.Call):
            for at in range(len(node.elts)):
                yield "member", ast.Set([*node.elts[:at], *node.elts[at + 1 :]] or [ast.Constant(None)])


def _is_negated_below(test: ast.expr) -> bool:
    """One of the test's own mutants is its negation."""
    is_not = isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
    return is_not or (isinstance(test, ast.Compare) and len(test.ops) == 1)
