"""Public names of a package that are imported on first use (PEP 562): their modules may take seconds to import."""

from collections.abc import Callable, Mapping
from importlib import import_module

from mmgpt.utils.imports import without_collection


def lazy_names(package: str, modules: Mapping[str, str]) -> Callable[[str], object]:
    """The `__getattr__` of a package, from its public names and the module of each, relative to the package.

    Raises (the function): AttributeError for any other name.
    """

    def get(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with without_collection():
            module = import_module(f"{package}.{modules[name]}")
        return getattr(module, name)

    return get
