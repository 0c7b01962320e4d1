import pytest

from mmgpt.engine import check_files


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = dict(ann_file="x/a.json", data_root="data", data_prefix=dict(img="x/images"))
    return dict(
        language_model="checkpoints/llama",
        data_root="data",
        needed={"${language_model}": "LLaMA-7B, from there", "${data_root}/x": "the x data, from here"},
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
    assert "nowhere" not in message and "openai" not in message


def test_nothing_to_say_when_all_is_there(cfg, tmp_path):
    (tmp_path / "checkpoints" / "llama").mkdir(parents=True)
    (tmp_path / "data" / "x" / "images").mkdir(parents=True)
    (tmp_path / "data" / "x" / "a.json").touch()
    check_files(cfg, skip=["test_dataloader"])
    with pytest.raises(FileNotFoundError, match="1 files or folders"):
        check_files(cfg)


def test_pretrained_weights_that_are_a_file(cfg):
    cfg = dict(model=dict(vision=dict(pretrained="checkpoints/tower.safetensors")))
    with pytest.raises(FileNotFoundError, match="checkpoints/tower.safetensors"):
        check_files(cfg)
