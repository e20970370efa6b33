"""What the analysis measures of Python source. Pure: text in, facts out, the same ones every time."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass

_BRANCHES = (
    ast.If,
    ast.IfExp,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.ExceptHandler,
    ast.Assert,
    ast.comprehension,
    ast.match_case,
)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, slots=True)
class FunctionFacts:
    """One function or method."""

    file: str
    name: str  # with the classes and functions around it
    line: int
    lines: int
    arguments: int
    complexity: int  # McCabe's number: independent ways through it
    documented: bool


@dataclass(frozen=True, slots=True)
class FileFacts:
    """One file."""

    file: str
    lines: int
    classes: int
    functions: tuple[FunctionFacts, ...]


def complexity(function: ast.AST) -> int:
    """McCabe's number of *function*, without the functions inside it."""
    number = 1
    todo = list(ast.iter_child_nodes(function))
    while todo:
        node = todo.pop()
        if isinstance(node, (*_FUNCTIONS, ast.Lambda)):
            continue
        if isinstance(node, _BRANCHES):
            number += 1
        elif isinstance(node, ast.BoolOp):
            number += len(node.values) - 1
        todo.extend(ast.iter_child_nodes(node))
    return number


def measure(file: str, source: str, tree: ast.Module) -> FileFacts:
    """The facts of one parsed file."""
    functions: list[FunctionFacts] = []
    classes = 0
    todo: list[tuple[ast.AST, str]] = [(tree, "")]
    while todo:
        node, around = todo.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, _FUNCTIONS):
                name = f"{around}{child.name}"
                functions.append(_function(file, name, child))
                todo.append((child, f"{name}."))
            elif isinstance(child, ast.ClassDef):
                classes += 1
                todo.append((child, f"{around}{child.name}."))
            else:
                todo.append((child, around))
    functions.sort(key=lambda item: (item.line, item.name))
    return FileFacts(file, source.count("\n") + 1, classes, tuple(functions))


def _function(file: str, name: str, node: ast.FunctionDef | ast.AsyncFunctionDef) -> FunctionFacts:
    arguments = node.args
    return FunctionFacts(
        file=file,
        name=name,
        line=node.lineno,
        lines=(node.end_lineno or node.lineno) - node.lineno + 1,
        arguments=len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs),
        complexity=complexity(node),
        documented=ast.get_docstring(node, clean=False) is not None,
    )


def coverage(functions: Iterable[FunctionFacts]) -> float:
    """The share of public functions that have a docstring, in per cent; 100 where there are none."""
    public = [item for item in functions if not any(part.startswith("_") for part in item.name.split("."))]
    if not public:
        return 100.0
    return round(100 * sum(item.documented for item in public) / len(public), 1)


def rank(files: Iterable[FileFacts], count: int = 10) -> list[FunctionFacts]:
    """The most complex functions, the worst first."""
    functions = [function for file in files for function in file.functions]
    return sorted(functions, key=lambda item: (-item.complexity, item.file, item.line))[:count]
