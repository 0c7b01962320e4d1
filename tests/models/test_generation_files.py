"""Generation settings in the files of a base, valid or not."""

from pathlib import Path

import pytest
from transformers import GenerationConfig

from mmgpt.models import generation_files
from mmgpt.models.generation_files import base_generation_config
from mmgpt.models.language import load_language_model

DRAWING = dict(temperature=0.9, top_p=0.6, min_p=0.1, typical_p=0.5, epsilon_cutoff=0.1, eta_cutoff=0.1, top_k=20)
# The settings in a file, and those of them that are invalid.
FILES = {
    "vicuna": (dict(bos_token_id=1, eos_token_id=2, pad_token_id=0, max_length=4096, temperature=0.9, top_p=0.6),
               {"temperature", "top_p"}),
    "drawing": (dict(do_sample=True, **DRAWING), set()),
    "not drawing": (dict(do_sample=False, repetition_penalty=1.3, **DRAWING), set(DRAWING)),
    "beams": (dict(length_penalty=2.0, early_stopping=True, num_beams=3), set()),
    "one beam": (dict(length_penalty=2.0, early_stopping=True, num_beams=1), {"length_penalty", "early_stopping"}),
    "sequences": (dict(num_return_sequences=4, num_beams=2), {"num_return_sequences"}),
    "greedy sequences": (dict(num_return_sequences=4), {"num_return_sequences"}),
    "wrong values": (dict(early_stopping="maybe", max_new_tokens=0, pad_token_id=-1, cache_implementation="x"),
                     {"early_stopping", "max_new_tokens", "pad_token_id", "cache_implementation"}),
    "wrong types": (dict(max_new_tokens="many", suppress_tokens=3), {"max_new_tokens", "suppress_tokens"}),
    "no cache": (dict(cache_implementation="static", use_cache=False), {"cache_implementation"}),
    "outputs": (dict(output_scores=True), {"output_scores"}),
    "arguments of generate": (dict(streamer="x", assistant_model="y"), {"streamer", "assistant_model"}),
    "forced and suppressed": (dict(suppress_tokens=[2, 3], forced_eos_token_id=2), {"forced_eos_token_id"}),
    "unknown": (dict(chat_format="chatml", top_k=50), set()),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_valid_settings_are_loaded_saved_and_loaded_again(name, base_saying, tmp_path, library_warnings):
    settings, invalid = FILES[name]
    config = load_language_model(base_saying(settings)).generation_config
    config.eos_token_id = [2, 1]
    config.save_pretrained(tmp_path / "out")
    again = GenerationConfig.from_pretrained(tmp_path / "out")
    for name, value in settings.items():
        if name != "eos_token_id":
            assert getattr(again, name, None) == (None if name in invalid else value)
    assert again.eos_token_id == [2, 1]
    assert library_warnings == []


def test_settings_come_from_config_json_without_generation_config_json(base_saying):
    """As in folders of transformers' first years; the other keys of config.json are not generation settings."""
    folder = base_saying(None, dict(repetition_penalty=1.3, temperature=0.5, eos_token_id=[2, 1]))
    config = base_generation_config(folder)
    assert (config.repetition_penalty, config.temperature, config.eos_token_id) == (1.3, None, [2, 1])
    assert not hasattr(config, "hidden_size")


def test_settings_that_are_left_out_are_logged(base_saying, monkeypatch):
    lines = []
    monkeypatch.setattr(generation_files, "print_log", lambda text, *_: lines.append(text))
    folder = base_saying(dict(temperature=0.9, num_beams=2))
    base_generation_config(folder)
    assert len(lines) == 1
    assert lines[0].startswith(f"{folder}/generation_config.json: without effect or invalid")
    assert lines[0].endswith("left out: temperature=0.9")


@pytest.mark.parametrize("content", ["{", "[1]", '"text"'])
def test_a_file_that_is_not_a_json_object_is_named(base_saying, content):
    folder = base_saying()
    (Path(folder) / "generation_config.json").write_text(content)
    with pytest.raises(ValueError, match="generation_config.json (is not valid JSON|holds a .*, not a JSON object)"):
        base_generation_config(folder)
