"""The package's folders and which of them import which, checked and drawn.

    python tools/dev/imports.py                  # the arrows, and what is wrong with them
    python tools/dev/imports.py --svg graph.svg  # the same as a picture

A folder imports from those above it in FLOORS only, inside functions too. The exit code is 1 where an import goes
upwards or modules import each other in a circle.
"""

import argparse
import ast
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = "mmgpt"
# Each imports from those before it.
FLOORS = (
    "registry",
    "utils",
    "compat",
    "cli",
    "models",
    "inference",
    "datasets",
    "visualization",
    "evaluation",
    "engine",
    "apis",
    "hf",
    "server",
    "webpage",
    "harness",
)


def module_name(path: Path, root: Path) -> str:
    """The dotted name of a module by its file."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(tree: ast.AST, module: str, is_package: bool, modules: set[str]) -> Iterator[str]:
    """The modules of the package that a module imports, at its top or inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] == PACKAGE)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.split(".")[: len(module.split(".")) - node.level + is_package]
                base = ".".join([*above, base] if base else above)
            if base.partition(".")[0] == PACKAGE:
                names = (f"{base}.{alias.name}" for alias in node.names)
                yield from (name if name in modules else base for name in names)


def read_graph(root: Path = ROOT) -> dict[str, set[str]]:
    """The modules that each module of the package imports."""
    files = sorted((root / PACKAGE).rglob("*.py"))
    names = {module_name(path, root): path for path in files}
    return {
        name: set(imports_of(ast.parse(path.read_text()), name, path.name == "__init__.py", set(names))) - {name}
        for name, path in names.items()
    }


def folder_of(module: str) -> str:
    """The top-level folder or module of the package that a module lies in; the package itself is ''."""
    return ".".join(module.split(".")[1:2])


def folder_arrows(graph: Mapping[str, set[str]]) -> Counter:
    """How many imports go from one folder to another: (from, to) -> number."""
    pairs = ((folder_of(module), folder_of(target)) for module, targets in graph.items() for target in targets)
    return Counter(pair for pair in pairs if pair[0] != pair[1] and all(pair))


def upward(graph: Mapping[str, set[str]]) -> list[str]:
    """Imports that go from a folder to one that is not above it in FLOORS, and folders that have no floor."""
    found = [f"{PACKAGE}.{name} has no floor" for name in sorted({*map(folder_of, graph)} - {"", *FLOORS})]
    for module, targets in graph.items():
        for target in sorted(targets):
            here, there = folder_of(module), folder_of(target)
            if here in FLOORS and there in FLOORS and FLOORS.index(there) > FLOORS.index(here):
                found.append(f"{module} imports {target}")
    return found


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other in a circle: the strongly connected components (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for target in graph.get(module, ()):
            if target not in index:
                visit(target)
                low[module] = min(low[module], low[target])
            elif target in stack:
                low[module] = min(low[module], index[target])
        if low[module] == index[module]:
            start = stack.index(module)
            if len(stack) - start > 1:
                groups.append(sorted(stack[start:]))
            del stack[start:]

    for module in graph:
        if module not in index:
            visit(module)
    return groups


def draw(arrows: Mapping[tuple[str, str], int]) -> str:
    """An SVG image: a row for each floor, an arc on the right for each arrow that goes up the page to what is imported.

    An import in the wrong direction is red and on the left.
    """
    height, left, width = 52, 260, 150
    lines = []
    for row, name in enumerate(FLOORS):
        y = 30 + row * height
        lines.append(f'<rect x="{left}" y="{y}" width="{width}" height="30" rx="6" fill="#eef2f7" stroke="#5b6b7f"/>')
        lines.append(f'<text x="{left + width / 2}" y="{y + 20}" text-anchor="middle">{name}</text>')
    for (source, target), count in sorted(arrows.items()):
        start, end = FLOORS.index(source), FLOORS.index(target)
        right = end < start
        side, sign = (left + width, 1) if right else (left, -1)
        y1, y2 = (45 + row * height for row in (start, end))
        bend = side + sign * (25 + 17 * abs(start - end))
        colour = "#5b6b7f" if right else "#c0392b"
        path = f"M {side} {y1} C {bend} {y1}, {bend} {y2}, {side} {y2}"
        lines.append(
            f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{min(1 + count / 8, 4):.1f}" '
            f'marker-end="url(#head)"><title>{source} imports {target}: {count}</title></path>'
        )
    head = '<marker id="head" markerWidth="7" markerHeight="7" refX="6" refY="3" orient="auto">'
    defs = f'<defs>{head}<path d="M0,0 L6,3 L0,6 z" fill="#5b6b7f"/></marker></defs>'
    size = f'width="700" height="{60 + height * len(FLOORS)}"'
    style = 'font-family="sans-serif" font-size="14"'
    body = "\n".join(lines)
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>'
    return "\n".join([svg, '<rect width="100%" height="100%" fill="#fff"/>', defs, body, "</svg>", ""])


def main() -> None:
    """Print the arrows and what is wrong, and draw them."""
    parser = argparse.ArgumentParser(description="Check and draw the imports between the package's folders")
    parser.add_argument("--svg", type=Path, help="file for the picture")
    args = parser.parse_args()
    graph = read_graph()
    arrows = folder_arrows(graph)
    for source in FLOORS:
        targets = sorted((target for start, target in arrows if start == source), key=FLOORS.index)
        print(f"{source:14} imports {', '.join(targets) or 'nothing of the package'}")
    wrong = [f"upward: {line}" for line in upward(graph)]
    wrong += [f"circle: {' <-> '.join(group)}" for group in circles(graph)]
    if args.svg:
        args.svg.write_text(draw(arrows))
    print("\n".join(wrong) if wrong else "no upward import, no circle")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
