"""What each module of a package imports, read from its source: nothing is run."""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

BY_STRING = {"import_module", "__import__", "resolve_name"}


@dataclass(frozen=True)
class Import:
    """One imported name of one statement.

    Args:
        importer (`str`): module, dotted, with the package's name in front.
        imported (`str`): module; one of the package itself where the package has it, else as it is written.
        line (`int`): of the statement.
        name (`str`): what is taken from it, empty for the module itself.
        at_start (`bool`): whether the statement runs when the importer is imported.
    """

    importer: str
    imported: str
    line: int
    name: str = ""
    at_start: bool = True


def modules_of(package: Path) -> dict[str, Path]:
    """Dotted name to file of every module, packages by their own name."""
    paths = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return paths


def imports_of(package: Path) -> list[Import]:
    """Every import statement of every module: in functions and under TYPE_CHECKING too, relative ones resolved."""
    modules = modules_of(package)
    found = []
    for module, path in modules.items():
        folder = module if path.name == "__init__.py" else module.rpartition(".")[0]
        for node, at_start in _statements(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found += [Import(module, alias.name, node.lineno, at_start=at_start) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                above = folder.split(".")[: len(folder.split(".")) - node.level + 1] if node.level else []
                source = ".".join([*above, *([node.module] if node.module else [])])
                for alias in node.names:
                    whole = f"{source}.{alias.name}"
                    taken = (whole, "") if whole in modules else (source, alias.name)
                    found.append(Import(module, taken[0], node.lineno, taken[1], at_start))
    return found


def string_imports_of(package: Path) -> list[tuple[str, int]]:
    """Module and line of every call that imports by a string, and of every module taken out of `sys.modules`."""
    found = []
    for module, path in modules_of(package).items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            taken = isinstance(node, ast.Subscript) and ast.unparse(node.value) == "sys.modules"
            if called.rpartition(".")[2] in BY_STRING or called == "sys.modules.get" or taken:
                found.append((module, node.lineno))
    return found


def circles(edges: Iterable[tuple[str, str]]) -> list[list[str]]:
    """The strongly connected parts of a graph with more than one node, each sorted."""
    targets: dict[str, set[str]] = {}
    for start, end in edges:
        targets.setdefault(start, set()).add(end)

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            new = targets.get(waiting.pop(), set()) - seen
            seen |= new
            waiting += new
        return seen

    reach = {node: reached(node) for node in targets}
    parts = {tuple(sorted(n for n in reach[node] if node in reach.get(n, ()))) for node in targets}
    return [list(part) for part in sorted(parts) if len(part) > 1]


def _statements(tree: ast.AST, at_start: bool = True) -> Iterator[tuple[ast.AST, bool]]:
    """Every node, and whether it runs at import: not within a function, nor where only a type checker looks."""
    for node in ast.iter_child_nodes(tree):
        yield node, at_start
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for part in node.body:
                yield part, False
                yield from _statements(part, False)
            for part in node.orelse:
                yield part, at_start
                yield from _statements(part, at_start)
        else:
            later = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from _statements(node, at_start and not later)
