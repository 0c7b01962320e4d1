import pytest

from mmgpt.models.beams import PublishedBeams
from mmgpt.models.generation import generation_arguments
from mmgpt.models.language import load_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tiny_llama):
    return load_tokenizer(tiny_llama)


def test_greedy_and_no_images_unless_asked(tokenizer):
    image, pad = tokenizer.convert_tokens_to_ids(["<image>", "<PAD>"])
    made = generation_arguments(tokenizer, dict(max_new_tokens=3))
    assert made == dict(do_sample=False, pad_token_id=pad, suppress_tokens=sorted([image, pad]), max_new_tokens=3)
    assert generation_arguments(tokenizer, dict(do_sample=True, suppress_tokens=None))["do_sample"]


def test_the_end_of_an_answer_has_a_name(tokenizer):
    made = generation_arguments(tokenizer, dict(end_token="<|endofchunk|>"))
    assert made["eos_token_id"] == tokenizer.convert_tokens_to_ids("<|endofchunk|>")
    assert "eos_token_id" not in generation_arguments(tokenizer, dict(end_token="</s>"))
    with pytest.raises(ValueError, match="end_token='stop': choose one of .*</s>"):
        generation_arguments(tokenizer, dict(end_token="stop"))


def test_scores_of_beams(tokenizer):
    published = generation_arguments(tokenizer, dict(beam_scores="text", num_beams=2))
    assert isinstance(published["custom_generate"], PublishedBeams) and "beam_scores" not in published
    assert "custom_generate" not in generation_arguments(tokenizer, dict(beam_scores="text"))
