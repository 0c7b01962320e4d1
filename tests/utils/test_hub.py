"""Names of models: local folders and ids on the Hub."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmgpt.utils.hub import is_hub_name, local_folder
from tests.helpers.hub_cache import put_into_cache, use_hub
from tests.helpers.hub_server import serve_hub

ROOT = Path(__file__).parents[2]
SMALL = {"config.json": b"{}", "tokenizer.json": b"[]", "chat_template.jinja": b"template"}
OTHERS = {"README.md": b"text", "onnx/config.json": b"exported", "consolidated.safetensors": b"twice"}


def files_in(folder):
    return {file.name for file in Path(folder).rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", True),
        ("HuggingFaceTB/SmolLM2-135M-Instruct@v1.0", True),
        ("google/siglip2-base", False),  # a local folder has this name
        ("local/missing", False),  # a local folder has the owner's name
        ("checkpoints/llama-7b_hf", False),
        ("/models/llama", False),
        ("./models/llama", False),
        ("../llama", False),
        ("models/llama/7b", False),
        ("llama", False),
        ("~/llama", False),
        ("owner/model@refs/pr/1", True),
        ("owner/model@../../else", False),
        ("", False),
    ],
)
def test_a_name_is_of_the_hub_unless_it_is_a_local_path(name, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("google/siglip2-base", "local"):
        (tmp_path / folder).mkdir(parents=True)
    assert is_hub_name(name) == expected


def test_a_local_folder_stays_as_it_is(tmp_path, monkeypatch):
    use_hub(monkeypatch, tmp_path)
    assert local_folder(tmp_path) == str(tmp_path)
    assert local_folder("missing/folder/of/nobody") == "missing/folder/of/nobody"


@pytest.mark.parametrize(
    ("weights", "loaded"),
    [
        ({"model.safetensors": b"1", "pytorch_model.bin": b"2"}, {"model.safetensors"}),
        ({"pytorch_model.bin": b"2"}, {"pytorch_model.bin"}),
    ],
)
def test_a_download_has_the_small_files_and_one_kind_of_weights(weights, loaded, tmp_path, monkeypatch):
    with serve_hub({"owner/model": {**SMALL, **weights, **OTHERS}}) as (address, downloads):
        use_hub(monkeypatch, tmp_path, address)
        assert files_in(local_folder("owner/model", weights=False)) == {*SMALL}
        assert files_in(local_folder("owner/model")) == {*SMALL, *loaded}
    assert sorted(downloads) == sorted({*SMALL, *loaded})
    # The cache is enough once the network is gone.
    use_hub(monkeypatch, tmp_path)
    assert files_in(local_folder("owner/model")) == {*SMALL, *loaded}


def test_several_processes_download_a_file_once(tmp_path):
    with serve_hub({"owner/model": {**SMALL, "model.safetensors": bytes(5_000_000)}}) as (address, downloads):
        environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
        code = (
            "import sys; from mmgpt.utils.hub import local_folder; print(local_folder('owner/model')); "
            "assert 'torch' not in sys.modules"
        )
        command = [sys.executable, "-c", code]
        processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        folders = {process.communicate(timeout=60)[0].strip().splitlines()[-1] for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert len(folders) == 1
    assert sorted(downloads) == sorted({*SMALL, "model.safetensors"})


def test_a_revision_is_read_from_the_cache(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    folder = put_into_cache(tmp_path / "hub", "owner/model", tmp_path / "model", revision="v1")
    use_hub(monkeypatch, tmp_path / "hub")
    assert local_folder("owner/model@v1") == str(folder)
    command = "`hf download owner/model --revision v2`"
    with pytest.raises(FileNotFoundError, match=rf"owner/model@v2 is neither .* HF_HUB_OFFLINE is set: run {command}"):
        local_folder("owner/model@v2")


def test_a_model_that_the_hub_does_not_have(tmp_path, monkeypatch):
    with serve_hub({}) as (address, _):
        use_hub(monkeypatch, tmp_path, address)
        with pytest.raises(FileNotFoundError, match="owner/model is neither .* the Hub has no such model"):
            local_folder("owner/model")
    with pytest.raises(FileNotFoundError, match="owner/model is neither .* the Hub does not give it .*refused"):
        local_folder("owner/model")
