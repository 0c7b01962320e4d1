"""The model and processor as one source file."""

import ast
import re
from pathlib import Path

from mmgpt.hf.source import CUT, FILE, source

ROOT = Path(__file__).parents[2]


def definitions(text):
    """The definitions of a source by name, without their registrations."""
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            node.decorator_list = [part for part in node.decorator_list if "register_module" not in ast.unparse(part)]
            found[node.name] = node
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            found[ast.unparse(node).partition(" = ")[0]] = node
    return found


def test_the_file_has_the_definitions_of_the_package():
    sections = re.split(r"^# (mmgpt/\S+\.py)$", source(), flags=re.MULTILINE)[1:]
    files = dict(zip(sections[::2], sections[1::2], strict=True))
    assert {"mmgpt/models/gated_lm.py", "mmgpt/hf/processing.py", "mmgpt/datasets/transforms/images.py"} < files.keys()
    del files["mmgpt/hf/source.py"]
    names = []
    for file, text in files.items():
        originals = definitions((ROOT / file).read_text())
        for name, node in definitions(text).items():
            original = originals[name]
            if name in CUT:
                methods = {ast.unparse(method) for method in original.body}
                assert {ast.unparse(method) for method in node.body} < methods
            else:
                assert ast.unparse(node) == ast.unparse(original)
            names.append(name)
    assert len(names) == len(set(names)) > 50


def test_the_file_needs_no_package_of_openmmlab_and_can_be_read():
    imports = [node for node in ast.walk(ast.parse(source())) if isinstance(node, (ast.Import, ast.ImportFrom))]
    modules = {getattr(node, "module", None) or node.names[0].name for node in imports}
    assert not {module for module in modules if module.partition(".")[0] in ("mmgpt", "mmengine", "peft")}
    assert "register_module" not in source()
    # The comment above a definition comes with it.
    assert "\n# The transposition that turns an image of each EXIF orientation upright" in source()
    assert max(map(len, source().splitlines())) <= 120


def test_an_exported_folder_has_the_file(merged):
    assert (Path(merged) / FILE).read_text() == source()
