"""The model and the processor as one source file, which runs without the package mmgpt."""

import ast
import sys
from functools import cache
from pathlib import Path

import mmgpt

FILE = "modeling_mmgpt.py"
ROOTS = ("mmgpt.hf.modeling", "mmgpt.hf.processing")  # the modules whose definitions are needed
# Image encoders, which the file builds without their constructors: only their forward and what it calls is taken.
CUT = ("HFVision", "OpenCLIPVision", "TimmVision")
HEADER = '''\
# Copyright (c) The authors of mmgpt. Licensed under the Apache License, Version 2.0.
# Made from the sources of mmgpt {version}: the definitions that its model and processor need, module by module.
"""mmgpt's Flamingo for transformers: AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True)."""

'''
FOOTER = '''

# mmgpt/hf/source.py
FILE = "{file}"


def source() -> str:
    """The text of this file."""
    return Path(__file__).read_text(encoding="utf-8")
'''


@cache
def source() -> str:
    """The text of FILE.

    1. From the definitions of ROOTS, each name that a definition uses leads to the next one, in its module.
    2. The modules follow each other as they import each other, and their definitions as they stand in them, with the
       comments above them; registrations and imports of the package are left out.

    Raises:
        ValueError: two modules define one name, or import it from different places.
    """
    modules = {name: Module(name) for name in ROOTS}
    waiting = [(root, name) for root in ROOTS for name in modules[root].definitions]
    needed: dict[str, str] = {}
    imports: dict[str, str] = {}
    while waiting:
        module_name, name = waiting.pop()
        if needed.setdefault(name, module_name) != module_name:
            raise ValueError(f"{module_name} and {needed[name]} both define {name!r}")
        module = modules[module_name]
        for used in sorted(module.names_in(name)):
            origin = module_name if used in module.definitions else module.inside.get(used, __name__)
            if used in module.outside and imports.setdefault(used, module.outside[used]) != module.outside[used]:
                raise ValueError(f"{used!r} is imported as {imports[used]!r}, and in {module_name} otherwise")
            if origin != __name__ and needed.get(used) != origin:
                if origin not in modules:
                    modules[origin] = Module(origin)
                waiting.append((origin, used))
    sections = []
    for module_name in _in_order(modules):
        module = modules[module_name]
        texts = [module.text(name) for name in module.definitions if needed.get(name) == module_name]
        sections.append(f"# {module_name.replace('.', '/')}.py\n" + "\n\n\n".join(texts))
    head = HEADER.format(version=mmgpt.__version__) + "\n".join(sorted(imports.values()))
    return "\n\n\n".join([head, *sections]) + "\n" + FOOTER.format(file=FILE)


class Module:
    """The top-level definitions of a module of the package, and its imports.

    Attributes:
        definitions: the nodes by name, without registrations.
        inside: names that are imported from the package -> their module.
        outside: names that are imported from elsewhere -> their import statement.
    """

    def __init__(self, name: str):
        text = Path(sys.modules[name].__file__).read_text(encoding="utf-8")
        self.lines, self.definitions, self.inside, self.outside = text.splitlines(), {}, {}, {}
        for node in ast.parse(text).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                node.decorator_list = [d for d in node.decorator_list if "register_module" not in ast.unparse(d)]
                self.definitions[node.name] = _cut(node) if node.name in CUT else node
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                for target in ast.walk(node.targets[0] if isinstance(node, ast.Assign) else node.target):
                    if isinstance(target, ast.Name):
                        self.definitions[target.id] = node
            elif isinstance(node, ast.ImportFrom):
                parent = name.split(".")[: -node.level] if node.level else []
                origin = ".".join([*parent, *filter(None, [node.module])])
                if origin.startswith("mmgpt."):
                    self.inside |= {alias.name: origin for alias in node.names}
                else:
                    self.outside |= {a.asname or a.name: f"from {origin} import {ast.unparse(a)}" for a in node.names}
            elif isinstance(node, ast.Import):
                self.outside |= {alias.asname or alias.name: f"import {ast.unparse(alias)}" for alias in node.names}

    def names_in(self, name: str) -> set[str]:
        """The names that a definition uses."""
        return {node.id for node in ast.walk(self.definitions[name]) if isinstance(node, ast.Name)}

    def text(self, name: str) -> str:
        """The source of a definition, with the comment above it."""
        node = self.definitions[name]
        # Of a class that was cut, the docstring stands for its head, and the methods are apart.
        pieces = [node] if name not in CUT else node.body
        lines: list[str] = []
        for piece in pieces:
            decorators = [f"{' ' * piece.col_offset}@{ast.unparse(d)}" for d in getattr(piece, "decorator_list", ())]
            start = (node if piece is pieces[0] else piece).lineno
            lines += [*[""] * bool(lines), *decorators, *self.lines[start - 1 : piece.end_lineno]]
        first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", ()))]) - 1
        while self.lines[first - 1].startswith("#"):
            first -= 1
            lines.insert(0, self.lines[first])
        return "\n".join(lines)


def _in_order(modules: dict[str, Module]) -> list[str]:
    """The names of modules, each after those that it imports."""
    order: dict[str, None] = {}

    def add(name: str) -> None:
        if name in modules and name not in order:
            for origin in dict.fromkeys(modules[name].inside.values()):
                add(origin)
            order[name] = None

    for root in ROOTS:
        add(root)
    return list(order)


def _cut(node: ast.ClassDef) -> ast.ClassDef:
    """A class with only its docstring, its forward, and the methods that this calls."""
    methods = {method.name: method for method in node.body if isinstance(method, ast.FunctionDef)}
    kept, waiting = {}, ["forward"]
    while waiting:
        name = waiting.pop()
        kept[name] = methods[name]
        used = {part.attr for part in ast.walk(methods[name]) if isinstance(part, ast.Attribute)}
        waiting += used & methods.keys() - kept.keys()
    node.body = [node.body[0], *(method for method in node.body if getattr(method, "name", None) in kept)]
    return node
