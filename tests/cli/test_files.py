import os

import pytest

from mmgpt.cli import check_files, files
from mmgpt.cli.files import file_fingerprint, fingerprints
from tests.helpers.hub_cache import COMMIT, put_into_cache, use_hub
from tests.helpers.hub_server import serve_hub


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = dict(ann_file="x/a.json", data_root="data", data_prefix=dict(img="x/images"))
    return dict(
        language_model="checkpoints/llama",
        data_root="data",
        sources={"checkpoints/llama": "LLaMA-7B, from there", "data/x": "the x data, from here"},
        model=dict(language=dict(path="checkpoints/llama"), vision=dict(pretrained="openai", weights=None)),
        unused=dict(path="nowhere"),
        train_dataloader=dict(dataset=dict(visual=[data], tokenizer="checkpoints/llama")),
        test_dataloader=dict(dataset=dict(ann_file="test.json")),
    )


def test_one_message_lists_all_that_is_missing(cfg):
    with pytest.raises(FileNotFoundError) as raised:
        check_files(cfg)
    message = str(raised.value)
    assert message.count("\n") < 12
    for words in [
        "4 files",
        "LLaMA-7B, from there\n    checkpoints/llama  (model.language.path and 1 more)\n"
        "    elsewhere? --cfg-options language_model=...",
        "the x data, from here\n    data/x/a.json  (train_dataloader.dataset.visual[0].ann_file)\n    data/x/images",
        "--cfg-options data_root=...",
        "test.json",
        "--cfg-options test_dataloader.dataset.ann_file=...",
    ]:
        assert words in message
    assert "nowhere" not in message
    assert "openai" not in message


def test_the_longest_path_has_the_source(cfg):
    cfg["sources"] |= {"test.json": "the test data, from elsewhere", "other/test.json": "no source of it"}
    with pytest.raises(FileNotFoundError, match="the test data, from elsewhere\n    test.json") as raised:
        check_files(cfg)
    assert "LLaMA-7B, from there" in str(raised.value)


def fill(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def test_nothing_to_say_when_all_is_there(cfg, tmp_path):
    fill(tmp_path / "checkpoints" / "llama", "config.json", "tokenizer.model", "model.safetensors")
    (tmp_path / "data" / "x" / "images").mkdir(parents=True)
    (tmp_path / "data" / "x" / "a.json").touch()
    check_files(cfg, skip=["test_dataloader"])
    with pytest.raises(FileNotFoundError, match="1 files or folders"):
        check_files(cfg)


def test_a_dataset_that_its_mix_leaves_out_needs_no_files(cfg):
    [part] = cfg["train_dataloader"]["dataset"]["visual"]
    part["weight"] = 0
    with pytest.raises(FileNotFoundError, match="2 files or folders") as raised:
        check_files(cfg)
    assert "a.json" not in str(raised.value)
    part["weight"] = 0.5
    with pytest.raises(FileNotFoundError, match="a.json"):
        check_files(cfg)


def test_pretrained_weights_that_are_a_file(cfg):
    cfg = dict(model=dict(vision=dict(pretrained="checkpoints/tower.safetensors")))
    with pytest.raises(FileNotFoundError, match="checkpoints/tower.safetensors"):
        check_files(cfg)


LANGUAGE = dict(language=dict(path="w"))
VISION = dict(vision=dict(type="OpenCLIPVision", path="w"))


@pytest.mark.parametrize(
    ("model", "there", "missing"),
    [
        (LANGUAGE, [], ["config.json", "tokenizer.json or tokenizer.model or vocab.json", "*.safetensors or *.bin"]),
        (LANGUAGE, ["config.json", "tokenizer.json"], ["*.safetensors or *.bin"]),
        (LANGUAGE, ["config.json", "tokenizer.model", "model-00001-of-00002.bin"], []),
        (dict(language=dict(path="w", pretrained=False)), ["config.json"], ["tokenizer.json"]),
        (dict(language=dict(path="w", pretrained=False, config=dict(hidden_size=8))), ["tokenizer.json"], []),
        (VISION, ["config.json"], ["open_clip_config.json", "*.safetensors or *.bin"]),
        (VISION, ["open_clip_config.json", "open_clip_model.safetensors"], []),
        (dict(vision=dict(type="HFVision", path="w")), ["pytorch_model.bin"], ["config.json"]),
        (dict(steps=[dict(type="TokenizeSegments", tokenizer="w")]), ["config.json"], ["tokenizer.json"]),
    ],
)
def test_a_folder_that_lacks_a_file(tmp_path, monkeypatch, model, there, missing):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "w", *there)
    if not missing:
        return check_files(dict(model=model))
    with pytest.raises(FileNotFoundError) as raised:
        check_files(dict(model=model))
    assert f"{len(missing)} files" in str(raised.value)
    for words in missing:
        assert f"    w/{words}" in str(raised.value)


def test_the_description_of_a_tower(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_files(dict(model=dict(vision=dict(type="OpenCLIPVision", model="ViT-L-14"))))
    with pytest.raises(FileNotFoundError, match=r"towers/tiny.json  \(model.vision.model\)"):
        check_files(dict(model=dict(vision=dict(type="OpenCLIPVision", model="towers/tiny.json"))))


def test_data_that_a_hook_reads_are_looked_for(cfg):
    cfg["default_hooks"] = dict(answers=dict(loader=dict(dataset=dict(ann_file="heldout.json"))))
    with pytest.raises(FileNotFoundError, match=r"heldout.json  \(default_hooks.answers.loader.dataset.ann_file\)"):
        check_files(cfg, skip=["test_dataloader"])


@pytest.fixture
def base(tmp_path):
    for name in (
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors",
        "generation_config.json",
    ):
        (tmp_path / "base" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "base" / name).write_text(name)
    return tmp_path / "base"


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("model.safetensors", ["language.path"]),
        ("config.json", ["language.path"]),
        ("tokenizer_config.json", ["language.path", "tokenizer"]),
        ("generation_config.json", []),
    ],
)
def test_a_folder_is_known_by_what_is_used_of_it(base, name, changed):
    part = dict(language=dict(path=str(base)), tokenizer=str(base), data_prefix=dict(img=str(base)))
    before = fingerprints(part)
    assert before.keys() == {"language.path", "tokenizer"}
    (base / name).write_text("another")
    after = fingerprints(part)
    assert [key for key in before if after[key] != before[key]] == changed
    base.rename(base.with_name("moved"))
    moved = dict(language=dict(path=f"{base.parent}/moved"), tokenizer=f"{base.parent}/moved")
    assert fingerprints(moved) == after


def test_weights_that_are_not_loaded_do_not_count(base):
    """The same weights in an older format may lie beside the safetensors, or have been removed to save room."""
    part = dict(language=dict(path=str(base)))
    before = fingerprints(part)
    (base / "pytorch_model.bin").write_text("the same in another format")
    assert fingerprints(part) == before
    (base / "model.safetensors").unlink()
    assert fingerprints(part) != before


@pytest.mark.parametrize("kind", ["mmgpt.HFVision", "mmgpt.models.HFVision", type("HFVision", (), {})])
def test_the_type_of_a_part_may_have_a_scope_or_be_a_class(base, kind):
    (base / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="config.json"):
        check_files({"model": dict(vision=dict(type=kind, path=str(base)))})


def test_a_large_file_is_known_by_blocks_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "WHOLE", 100)
    monkeypatch.setattr(files, "BLOCK", 10)
    content = bytearray(10_000)
    seen = set()
    for changed in (None, 0, 5_015, 9_999):
        (tmp_path / "a.bin").write_bytes(bytes(1 if i == changed else byte for i, byte in enumerate(content)))
        seen.add(file_fingerprint(tmp_path / "a.bin"))
    (tmp_path / "a.bin").write_bytes(content[1:])
    seen.add(file_fingerprint(tmp_path / "a.bin"))
    assert len(seen) == 5
    (tmp_path / "a.bin").rename(tmp_path / "b.bin")
    assert file_fingerprint(tmp_path / "b.bin") in seen


BY_NAME = dict(
    vision=dict(type="HFVision", path="owner/encoder"),
    language=dict(path="owner/model"),
    steps=[dict(tokenizer="owner/model")],
)


def test_models_of_the_hub_that_are_missing_are_listed_with_the_other_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "encoder", "config.json")
    put_into_cache(tmp_path / "hub", "owner/encoder", tmp_path / "encoder")
    use_hub(monkeypatch, tmp_path / "hub")
    cfg = dict(language_model="owner/model", model=BY_NAME, train_dataloader=dict(ann_file="a.json"))
    with pytest.raises(FileNotFoundError) as raised:
        check_files(cfg)
    message = str(raised.value)
    assert message.startswith("3 files")
    for words in [
        "HF_HUB_OFFLINE is set: run `hf download owner/model` with a network",
        "    owner/model  (model.language.path and 1 more)\n    elsewhere? --cfg-options language_model=...",
        "    owner/encoder/*.safetensors or *.bin or *.pt or *.pth  (model.vision.path)",
        "    a.json  (train_dataloader.ann_file)",
    ]:
        assert words in message


def test_models_of_the_hub_are_downloaded_when_no_other_file_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ("config.json", "tokenizer.json", "model.safetensors")
    models = {"owner/model": {name: name.encode() for name in names}, "owner/encoder": {names[0]: b"{}"}}
    cfg = dict(model=BY_NAME, train_dataloader=dict(ann_file="a.json"))
    with serve_hub(models) as (address, downloads):
        use_hub(monkeypatch, tmp_path / "hub", address)
        with pytest.raises(FileNotFoundError, match="1 files.*\n.*\n    a.json"):
            check_files(cfg)
        assert not downloads
        fill(tmp_path, "a.json")
        with pytest.raises(FileNotFoundError, match=r"1 files.*\n.*\n    owner/encoder/\*.safetensors or"):
            check_files(cfg)
    assert sorted(downloads) == sorted([*names, "config.json"])
    # Fingerprints and other readers of the files follow the names into the cache.
    assert fingerprints(BY_NAME).keys() == {"vision.path", "language.path", "steps[0].tokenizer"}
    assert {os.path.basename(path) for path in files.named_files(BY_NAME)} == {COMMIT}
