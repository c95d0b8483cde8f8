"""Print the structure of the packages in figures, each with its limit: `python -m benchmarks.structure` (`make check`).

Files and code lines; import arrows between the folders of a package; the longest import path; who imports `predict`;
circles. Imports inside of functions count; those for type checkers count as arrows, not in paths.
"""

import ast
import io
import statistics
import sys
import tokenize
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("models", "pipeline", "train", "swathe")
PREDICT = "pipeline.inference.predict"
LIMITS = {
    "files": 370,
    "code lines": 38_500,
    "arrows in pipeline": 80,
    "arrows in train": 22,
    "longest import path": 22,
    "importers of predict": 14,
    "modules in circles": 0,
    "median lines of a function": 10,
}
NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}

Graph = Mapping[str, frozenset[str]]


def modules(root: Path) -> dict[str, Path]:
    """Find the files of the packages by their dotted names."""
    files = (path for package in PACKAGES for path in sorted((root / package).rglob("*.py")))
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def code_lines(source: str) -> int:
    """Count lines that hold code: no docstring, comment or blank line."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def function_lines(source: str) -> Iterator[int]:
    """Count the lines of each function, docstring and all."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield (node.end_lineno or node.lineno) - node.lineno + 1


def imported(node: ast.AST, package: list[str], *, typing: bool) -> Iterator[str]:
    """Yield the dotted names that a file imports, wherever in it; with `typing` also those for type checkers alone."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not typing:
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        base = package[: len(package) - node.level + 1] if node.level else []
        yield from (".".join([*base, *filter(None, [node.module]), alias.name]) for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from imported(child, package, typing=typing)


def import_graph(files: Mapping[str, Path], *, typing: bool) -> Graph:
    """Return which module imports which of ours."""

    def ours(name: str) -> str:
        while name and name not in files:
            name = name.rpartition(".")[0]
        return name

    graph = {}
    for module, path in files.items():
        package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
        found = map(ours, imported(ast.parse(path.read_text("utf-8")), package, typing=typing))
        graph[module] = frozenset(found) - {"", module}
    return graph


def folder_of(module: str) -> str:
    """Return the folder of a package in which a module lies; a file right in a package stands for itself."""
    return ".".join(module.split(".")[:2])


def arrows(graph: Graph, package: str) -> set[tuple[str, str]]:
    """Return pairs of folders of a package of which the one imports the other."""
    pairs = {(folder_of(a), folder_of(b)) for a, imports in graph.items() for b in imports}
    return {(a, b) for a, b in pairs if a != b and a.split(".")[0] == b.split(".")[0] == package}


def circles(graph: Graph) -> set[str]:
    """Return modules that import themselves by way of others."""

    def reached(module: str) -> set[str]:
        seen, rest = set[str](), list(graph[module])
        while rest:
            if (here := rest.pop()) not in seen:
                seen.add(here)
                rest.extend(graph[here])
        return seen

    return {module for module in graph if module in reached(module)}


def longest_path(graph: Graph) -> list[str]:
    """Return the longest way along imports, from the top down. The graph has no circles."""

    @cache
    def depth(module: str) -> int:
        return 1 + max(map(depth, graph[module]), default=0)

    path = [max(graph, key=depth)]
    while graph[path[-1]]:
        path.append(max(sorted(graph[path[-1]]), key=depth))
    return path


def measure(root: Path) -> tuple[dict[str, float], list[str]]:
    """Return all figures, and the longest import path."""
    files = modules(root)
    sources = [path.read_text("utf-8") for path in files.values()]
    plain, typed = (import_graph(files, typing=typing) for typing in (False, True))
    looped = circles(plain)
    path = [] if looped else longest_path(plain)
    figures = {
        "files": len(files),
        "code lines": sum(map(code_lines, sources)),
        "arrows in pipeline": len(arrows(typed, "pipeline")),
        "arrows in train": len(arrows(typed, "train")),
        "longest import path": len(path),
        "importers of predict": sum(PREDICT in imports for imports in typed.values()),
        "modules in circles": len(looped),
        "median lines of a function": statistics.median(n for source in sources for n in function_lines(source)),
    }
    return figures, path


def folders(root: Path) -> dict[str, tuple[int, int]]:
    """Count files and code lines of each folder."""
    counts: dict[str, tuple[int, int]] = {}
    for module, path in modules(root).items():
        name = folder_of(module) if path.parent.parent != root else module.split(".")[0]
        had = counts.get(name, (0, 0))
        counts[name] = had[0] + 1, had[1] + code_lines(path.read_text("utf-8"))
    return counts


def main() -> int:
    """Print the figures of this checkout, or of the one whose path is given; 1 where one is over its limit."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    figures, path = measure(root)
    for name, (files, lines) in folders(root).items():
        print(f"{name:24}{files:5} files{lines:7,} code lines")
    for name, value in figures.items():
        over = "   over the limit" if value > LIMITS[name] else ""
        print(f"{name:28}{value:8,g}   at most {LIMITS[name]:,}{over}")
    print(" > ".join(path))
    return int(any(value > LIMITS[name] for name, value in figures.items()))


if __name__ == "__main__":
    sys.exit(main())
