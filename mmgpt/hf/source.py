"""The model and the processor as one source file, which runs without the package mmgpt."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import mmgpt

FILE = "modeling_mmgpt.py"
ROOTS = ("mmgpt.hf.modeling", "mmgpt.hf.processing")  # the modules whose classes are needed
# Image encoders, which the file builds without their constructors: only what their forward needs is taken.
CUT = ("HFVision", "OpenCLIPVision")
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
    """The text of FILE: the definitions that the model and the processor need, in their modules' order.

    Of each module, in the order in which they import each other, those definitions are taken that a needed definition
    names. Imports of the package and registrations are left out.

    Raises:
        ValueError: two modules define one name, or a module of the package is imported under another name.
    """
    modules: dict[str, Module] = {}
    needed: dict[str, set[str]] = {}
    for root in ROOTS:
        _visit(root, [name for name in _module(root, modules).definitions if not name.startswith("_")], modules, needed)
    imports, bodies, owners = set(), [], {}
    for name in _in_order(ROOTS, modules, needed):
        module = modules[name]
        for definition in needed[name]:
            if owners.setdefault(definition, name) != name:
                raise ValueError(f"{name} and {owners[definition]} both define {definition!r}")
        imports |= {module.outside[used] for used in module.names_in(needed[name]) if used in module.outside}
        texts = [module.text(definition) for definition in module.definitions if definition in needed[name]]
        bodies.append(f"# {name.replace('.', '/')}.py\n" + "\n\n\n".join(texts))
    header = HEADER.format(version=mmgpt.__version__) + "\n".join(sorted(imports))
    return "\n\n\n".join([header, *bodies]) + "\n" + FOOTER.format(file=FILE)


class Module:
    """The top-level definitions of a module of the package, and its imports.

    Attributes:
        definitions: the node of each defined name, in their order.
        inside: names that are imported from the package, each with its module.
        outside: names that are imported from elsewhere, each with its import statement.
    """

    def __init__(self, name: str):
        text = Path(sys.modules[name].__file__).read_text(encoding="utf-8")
        self.lines, self.definitions, self.inside, self.outside = text.splitlines(), {}, {}, {}
        for node in ast.parse(text).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                self.definitions[node.name] = _cut(node) if node.name in CUT else node
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                for target in ast.walk(node.targets[0] if isinstance(node, ast.Assign) else node.target):
                    if isinstance(target, ast.Name):
                        self.definitions[target.id] = node
            elif isinstance(node, ast.Import):
                self.outside |= {alias.asname or alias.name: f"import {_alias(alias)}" for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                parent = name.split(".")[: -node.level] if node.level else []
                origin = ".".join([*parent, *([node.module] if node.module else [])])
                for alias in node.names:
                    if not origin.startswith("mmgpt."):
                        self.outside[alias.asname or alias.name] = f"from {origin} import {_alias(alias)}"
                    elif alias.asname:
                        raise ValueError(f"{name} imports {alias.name} under another name: {alias.asname}")
                    else:
                        self.inside[alias.name] = origin

    def names_in(self, definitions: set[str]) -> set[str]:
        """All names in these definitions, those of registrations left out."""
        nodes = [part for name in definitions for part in _parts(self.definitions[name])]
        return {node.id for part in nodes for node in ast.walk(part) if isinstance(node, ast.Name)}

    def text(self, name: str) -> str:
        """A definition without its registrations, with the comment above it."""
        node = self.definitions[name]
        start = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", ()))]) - 1
        comment = start
        while comment and self.lines[comment - 1].startswith("#"):
            comment -= 1
        lines = [*self.lines[comment:start], *(f"@{ast.unparse(decorator)}" for decorator in _decorators(node))]
        body = node.body if name in CUT else [node]
        if name in CUT:
            lines += self.lines[node.lineno - 1 : body[0].end_lineno]  # the head of the class, with its docstring
            for method in body[1:]:
                first = min([method.lineno, *(decorator.lineno for decorator in method.decorator_list)])
                lines += ["", *self.lines[first - 1 : method.end_lineno]]
        else:
            lines += self.lines[node.lineno - 1 : node.end_lineno]
        return "\n".join(lines)


def _module(name: str, modules: dict[str, Module]) -> Module:
    return modules.setdefault(name, modules.get(name) or Module(name))


def _visit(name: str, definitions: list[str], modules: dict[str, Module], needed: dict[str, set[str]]) -> None:
    """Adds to `needed` these definitions of a module, and those of the package that they name."""
    module, known = _module(name, modules), needed.setdefault(name, set())
    new = {definition for definition in definitions if definition in module.definitions} - known
    if not new:
        return
    known |= new
    names = module.names_in(new)
    _visit(name, list(names), modules, needed)
    for used in sorted(names & module.inside.keys()):
        if module.inside[used] != __name__:
            _visit(module.inside[used], [used], modules, needed)


def _in_order(names: tuple[str, ...], modules: dict[str, Module], needed: dict[str, set[str]]) -> list[str]:
    """The needed modules, each after those that it imports."""
    order: dict[str, None] = {}

    def add(name: str) -> None:
        if name in needed and name not in order:
            for origin in dict.fromkeys(modules[name].inside.values()):
                add(origin)
            order[name] = None

    for name in names:
        add(name)
    return list(order)


def _cut(node: ast.ClassDef) -> ast.ClassDef:
    """A class with only its docstring, its forward, and the methods that this calls."""
    methods = {method.name: method for method in node.body if isinstance(method, ast.FunctionDef)}
    kept, waiting = {}, ["forward"]
    while waiting:
        name = waiting.pop()
        kept[name] = methods[name]
        names = {part.attr for part in ast.walk(methods[name]) if isinstance(part, ast.Attribute)}
        waiting += [name for name in names & methods.keys() if name not in kept]
    node.body = [node.body[0], *(method for method in node.body if getattr(method, "name", None) in kept)]
    return node


def _decorators(node: ast.stmt) -> list[ast.expr]:
    """The decorators of a definition that are not registrations."""
    return [part for part in getattr(node, "decorator_list", ()) if "register_module" not in ast.unparse(part)]


def _parts(node: ast.stmt) -> Iterator[ast.AST]:
    """Yields the parts of a definition, without its registrations."""
    for field, value in ast.iter_fields(node):
        for part in _decorators(node) if field == "decorator_list" else value if isinstance(value, list) else [value]:
            if isinstance(part, ast.AST):
                yield part


def _alias(alias: ast.alias) -> str:
    return f"{alias.name} as {alias.asname}" if alias.asname else alias.name
