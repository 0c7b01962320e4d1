"""tools/dev/imports.py: folders import downwards only, also inside functions."""

import runpy
from pathlib import Path

TOOL = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "dev" / "imports.py"))


def write_package(folder, **modules):
    for name, text in modules.items():
        path = folder / "mmgpt" / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return TOOL["read_graph"](folder)


def test_the_package_imports_downwards_and_in_no_circle():
    graph = TOOL["read_graph"]()
    assert TOOL["upward"](graph) == []
    assert TOOL["circles"](graph) == []


def test_an_upward_import_inside_a_function_is_found(tmp_path):
    graph = write_package(
        tmp_path, utils__seeds="def f():\n    from mmgpt.models.flamingo import g\n", models__flamingo=""
    )
    assert TOOL["upward"](graph) == ["mmgpt.utils.seeds imports mmgpt.models.flamingo"]


def test_a_relative_import_of_a_module_is_found(tmp_path):
    graph = write_package(
        tmp_path, utils__seeds="from ..models import flamingo\n", models__flamingo="", models____init__=""
    )
    assert TOOL["upward"](graph) == ["mmgpt.utils.seeds imports mmgpt.models.flamingo"]


def test_a_circle_of_modules_is_found(tmp_path):
    graph = write_package(
        tmp_path, utils__a="from . import b\n", utils__b="from .c import x\n", utils__c="import mmgpt.utils.a\n"
    )
    assert TOOL["circles"](graph) == [["mmgpt.utils.a", "mmgpt.utils.b", "mmgpt.utils.c"]]


def test_a_folder_without_a_floor_is_found(tmp_path):
    assert TOOL["upward"](write_package(tmp_path, attic__x="")) == ["mmgpt.attic has no floor"]


def test_the_drawing_shows_an_upward_arrow_in_red():
    assert "#c0392b" not in TOOL["draw"]({("models", "utils"): 3})
    assert "#c0392b" in TOOL["draw"]({("utils", "models"): 1})
