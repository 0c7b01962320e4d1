"""Exported folders are data: what a description may hold, that nothing in it is run, and which files are there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from mmgpt.cli import load_config
from mmgpt.cli.description import ADAPTER, TRAINED, check_weights, write_description

MODEL = dict(
    type="LoRAModel",
    module=dict(
        type="Flamingo", vision=dict(type="OpenCLIPVision", path="${vision}"), language=dict(path="${language}")
    ),
    lora=dict(r=2, target_modules=["q_proj"]),
)
VALUES = dict(
    vision="base/vision",
    language="base/language",
    model=MODEL,
    chat_pipeline=[
        dict(type="PrepareImages", size=32, mean=[0.1] * 3, std=[0.2] * 3),
        dict(type="FormatPrompt", template="short", open_last=True),
        dict(type="TokenizeSegments", tokenizer="${language}", max_length=9),
    ],
    needed={"${language}": "a language model"},
)


@pytest.fixture
def folder(tmp_path):
    """An exported folder; its weights are no tensors, which is nothing that a description looks at."""
    out = tmp_path / "out"
    (out / "adapter").mkdir(parents=True)
    (out / ADAPTER).write_bytes(b"adapter")
    write_description(out, VALUES, [ADAPTER])
    return out


def changed(folder, change):
    """Change the description by a function of its content."""
    content = json.loads((folder / "mmgpt.json").read_text())
    change(content)
    (folder / "mmgpt.json").write_text(json.dumps(content))


def old(folder, text):
    """Make it a folder of before, with a Python file."""
    (folder / "mmgpt.json").unlink()
    (folder / "config.py").write_text(text)


def test_a_folder_is_read_as_its_config_was(folder):
    cfg = load_config(folder, {"language": "moved/language", "model.lora.r": 4})
    assert cfg.model.module.language.path == cfg.chat_pipeline[2].tokenizer == "moved/language"
    assert cfg.chat_pipeline[2].add_bos_token is True  # as in the release that wrote such a folder
    assert (cfg.model.lora.r, cfg.default_scope, cfg.filename) == (4, "mmgpt", str(folder / "mmgpt.json"))
    assert load_config(folder / "mmgpt.json").model == load_config(folder).model
    # Scripts name the file that was there before.
    assert load_config(folder / "config.py").model.module.vision == dict(type="OpenCLIPVision", path="base/vision")


def test_here_is_the_folder_after_it_moved(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/flamingo.safetensors").write_bytes(b"weights")
    model = dict(MODEL["module"], weights="${here}/flamingo.safetensors")
    values = dict(VALUES, language="${here}/language", model=model)
    write_description(tmp_path / "out", values, ["flamingo.safetensors"])
    (tmp_path / "out").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    cfg = load_config("moved")
    assert cfg.model.weights == str(tmp_path / "moved/flamingo.safetensors")
    assert cfg.model.language.path == cfg.chat_pipeline[2].tokenizer == str(tmp_path / "moved/language")


ASKS = "__import__('pathlib').Path({!r}).touch()"


def test_a_program_in_a_folder_is_not_run(folder, tmp_path):
    asks = ASKS.format(str(tmp_path / "ran"))
    (folder / "config.py").write_text(asks)  # beside the description nobody reads it
    assert load_config(folder).model.type == "LoRAModel"
    plain = "model = dict(type='LoRAModel', module=dict(type='Flamingo'))\n"
    for text in (
        asks,
        f"{plain}x = {asks}",
        f"{plain}x = dict(y=[{asks}])",
        f"{plain}x = dict(**{asks})",
        f"{plain}x = dict({asks})",
        f"{plain}x = dict({{'a': {asks}}})",
        f"{plain}x = {{{asks}: 1}}",
        f"{plain}x = f'{{{asks}}}'",
        f"{plain}@{asks}\ndef f(): pass",
        f"{plain}x[{asks}] = 1",
        f"{plain}x: {asks} = 1",
        f"{plain}def f(x={asks}): pass",
        f"{plain}x = [{asks} for _ in 'a']",
        f"{plain}if {asks}: pass",
        f"import os\n{plain}",
        f"{plain}x = lambda: 1",
        f"{plain}x = y = 1",
        "not Python",
        "x = " + "-" * 100_000 + "1",
    ):
        (folder / "mmgpt.json").unlink(missing_ok=True)
        (folder / "config.py").write_text(text)
        with pytest.raises(ValueError, match="config.py is a program, not plain settings, and is not run: --trust"):
            load_config(folder)
    assert not (tmp_path / "ran").exists()


def test_a_program_is_run_where_it_is_trusted(folder, tmp_path, capsys):
    old(folder, f"model = dict(type='LoRAModel')\nx = '' if {ASKS.format(str(tmp_path / 'ran'))} else ''")
    assert load_config(folder, trust=True).model.type == "LoRAModel"
    assert (tmp_path / "ran").exists()
    assert f"{folder} is trusted: {folder / 'config.py'} is run" in capsys.readouterr().err


def test_an_old_folder_of_plain_settings_is_read_with_a_warning(folder, monkeypatch):
    warnings = []
    monkeypatch.setattr("mmgpt.cli.description.print_log", lambda text, *_: warnings.append(text))
    (folder / "mmgpt.json").unlink()
    values = dict(VALUES, language="{{ fileDirname }}/language", default_scope="mmgpt")
    Config(values).dump(folder / "config.py")
    cfg = load_config(folder)
    assert cfg.model.module.language.path == str(folder / "language")
    assert cfg.model.lora.target_modules == ["q_proj"]
    assert warnings == [
        f"{folder / 'config.py'} was written by an earlier mmgpt; it is read as plain settings: export the model again"
    ]
    text = (folder / "config.py").read_text()
    for more in ("_base_ = ['x.py']", "custom_imports = dict(imports=['os'])", "default_scope = 'os'"):
        (folder / "config.py").write_text(f"{text}\n{more}\n")
        with pytest.raises(ValueError, match=f"config.py: '{more.split()[0]}' has no place in a description"):
            load_config(folder)
    (folder / "config.py").write_text(text)
    (folder / ADAPTER).unlink()
    with pytest.raises(FileNotFoundError, match="without it, the model would answer as before tuning"):
        load_config(folder)


def put(*place, value):
    """A change of the description that sets a value at a place."""

    def change(content):
        for key in place[:-1]:
            content = content[key]
        content[place[-1]] = value

    return change


@pytest.mark.parametrize(
    "change, place",
    [
        (put("model", "type", value="torch.load"), "model.type='torch.load'"),
        (put("model", "type", value="mmgpt.apis.export.export"), "model.type='mmgpt.apis.export.export'"),
        (put("model", "type", value="BaseDataPreprocessor"), "model.type='BaseDataPreprocessor'"),  # MMEngine's
        (put("model", "type", value="${language}"), "model.type='${language}'"),
        (put("model", "type", value=["Flamingo"]), r"model.type=['Flamingo']"),
        (put("model", "module", "type", value="LoRAModel"), "model.module.type='LoRAModel'"),
        (put("model", "module", "vision", "type", value="subprocess.run"), "model.module.vision.type='subprocess.run'"),
        (put("model", "module", "vision", "type", value="PatchClassifier"), "vision.type='PatchClassifier'"),
        (put("model", "module", "data_preprocessor", value=dict(type="ImgDataPreprocessor")), "data_preprocessor.type"),
        (put("model", "module", "perceiver", value=dict(x=[dict(type="os.system")])), "perceiver.x[0].type"),
        (put("chat_pipeline", 0, "type", value="shutil.rmtree"), "chat_pipeline[0].type='shutil.rmtree'"),
        (put("chat_pipeline", 0, "type", value="AddExamples"), "chat_pipeline[0].type='AddExamples'"),
        (put("chat_pipeline", 0, value=[[dict(type="os.remove")]]), "chat_pipeline[0][0][0].type='os.remove'"),
        (put("chat_pipeline", 1, "template", value=dict(type="os.remove")), "chat_pipeline[1].template.type"),
        (put("imports", value=["this_imports_me"]), "it asks for the import of this_imports_me."),
    ],
)
def test_only_the_projects_own_classes_are_built(folder, change, place):
    changed(folder, change)
    with pytest.raises(ValueError, match="can do anything: --trust .trust=True in Python. allows") as raised:
        load_config(folder)
    assert place in str(raised.value)
    assert str(folder / "mmgpt.json") in str(raised.value)


@pytest.mark.parametrize(
    "change, words",
    [
        (put("_base_", value="x.py"), "'_base_' has no place"),
        (put("custom_imports", value=dict(imports=["os"])), "'custom_imports' has no place"),
        (put("default_scope", value="os"), "'default_scope' has no place"),
        (put("load_from", value="x.pth"), "'load_from' has no place"),
        (put("train_dataloader", value={}), "'train_dataloader' has no place"),
        (put("model", "_scope_", value="os"), "model._scope_ has no place"),
        (put("chat_pipeline", 0, "_scope_", value="os"), r"chat_pipeline\[0\]._scope_ has no place"),
        (put("model", "module", "_delete_", value=True), "model.module._delete_ has no place"),
        (put("model", "module", "generation", value=dict(custom_generate="x")), "generation.custom_generate has no"),
        (put("model", "module", "generation", value=dict(trust_remote_code=True)), "trust_remote_code has no place"),
        (put("model", "module", "language", "config", value=dict(auto_map={})), "language.config.auto_map has no"),
        (put("model", "module", "vision", value="${needed}"), "vision='.{needed}' refers to something else than"),
        (put("model", "module", "vision", value="${nowhere}"), "refers to something else than"),
        (put("vision", value="${language}${language}"), "vision='.{language}.{language}' refers to"),
        (put("model", value=[]), "`model` has to be an object"),
        (put("chat_pipeline", value="x"), "`model` has to be an object, and `chat_pipeline` a list"),
        (put("imports", value="os"), "`imports` has to be a list"),
        (put("format", value=2), "format=2, this version of mmgpt reads 1"),
        (put("files", value={}), "`files` has to name"),
        (put("files", value={"../x": dict(bytes=1, fingerprint="")}), "`files` has to name"),
        (put("files", value={"/x": dict(bytes=1, fingerprint="")}), "`files` has to name"),
        (put("files", value=[ADAPTER]), "`files` has to name"),
    ],
)
@pytest.mark.parametrize("trust", [False, True])
def test_entries_that_are_not_allowed_are_refused(folder, change, words, trust):
    changed(folder, change)
    with pytest.raises(ValueError, match=words):
        load_config(folder, trust=trust)


def test_steps_in_nested_lists_are_read(folder):
    changed(folder, lambda content: content.update(chat_pipeline=[content["chat_pipeline"]]))
    assert load_config(folder).chat_pipeline[0][2].add_bos_token is True


def test_a_type_of_a_new_language_models_settings_is_transformers_own(folder):
    language = dict(path="x", config=dict(model_type="llama", rope_parameters=dict(type="linear", factor=2.0)))
    changed(folder, put("model", "module", "language", value=language))
    assert load_config(folder).model.module.language == language


@pytest.mark.parametrize("depth", [40, 300, 400, 900])
def test_a_deeply_nested_description_is_refused(folder, depth):
    value = "x"
    for _ in range(depth):
        value = [value]
    changed(folder, put("model", "module", "perceiver", value=value))
    with pytest.raises(ValueError, match="mmgpt.json(: perceiver is nested more than 40 levels| is not valid JSON)"):
        load_config(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, b"\xff"])
def test_damaged_descriptions_are_refused(folder, text):
    (folder / "mmgpt.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match="mmgpt.json (is not valid JSON|holds a list, not a JSON object)"):
        load_config(folder)


def test_trusted_classes_are_imported_and_named(folder, tmp_path, capsys, monkeypatch):
    (tmp_path / "own_encoder.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    monkeypatch.syspath_prepend(tmp_path)
    model = dict(MODEL, module=dict(MODEL["module"], vision=dict(type="OwnEncoder")))
    write_description(folder, dict(VALUES, model=model), [ADAPTER], ["own_encoder"])
    with pytest.raises(ValueError, match="model.module.vision.type='OwnEncoder' is not one of .* own_encoder."):
        load_config(folder)
    assert not (tmp_path / "ran").exists()
    assert load_config(folder, trust=True).model.module.vision.type == "OwnEncoder"
    assert (tmp_path / "ran").exists()
    assert (
        "is trusted: model.module.vision.type='OwnEncoder' is not one of mmgpt's own classes (OpenCLIPVision"
        in capsys.readouterr().err
    )


def test_imports_that_no_class_needs_are_left_out(folder):
    write_description(folder, VALUES, [ADAPTER], ["own_dataset"])
    assert "imports" not in json.loads((folder / "mmgpt.json").read_text())


def test_changed_missing_and_surplus_weights_are_refused(folder):
    adapter = folder / ADAPTER
    (folder / TRAINED).write_bytes(b"")
    with pytest.raises(ValueError, match="trained.safetensors does not belong to the folder: mmgpt.json does not name"):
        load_config(folder)
    (folder / TRAINED).unlink()
    for content, words in (
        (b"adapte", "has 6 bytes, and 7 when it was written"),
        (b"", "has 0 bytes"),
        (b"ADAPTER", "is not the file that mmgpt.json was written with"),
    ):
        adapter.write_bytes(content)
        for read in (load_config, check_weights):
            with pytest.raises(ValueError, match=words):
                read(folder)
    adapter.unlink()
    with pytest.raises(FileNotFoundError, match="adapter_model.safetensors, which mmgpt.json names, is missing"):
        load_config(folder)
    adapter.mkdir()
    with pytest.raises(FileNotFoundError, match="is a folder, not a file"):
        load_config(folder)
    changed(folder, put("files", value={"x": dict(bytes=0, fingerprint="")}))
    with pytest.raises(FileNotFoundError, match=f"has no {ADAPTER}: without it, the model would answer as before"):
        load_config(folder)


def test_a_folder_without_a_description(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not an exported model: it has no mmgpt.json"):
        load_config(tmp_path)


def test_a_description_is_read_without_torch(folder):
    code = f"from mmgpt.cli import load_config as f; import sys; f({str(folder)!r}); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
