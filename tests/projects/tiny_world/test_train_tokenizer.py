"""The tiny world's tokenizer: Llama's layout, about one token a word, any text is decoded as it was."""

import re

import generate
import pytest
import train_tokenizer
from generator.vocabulary import COLOURS, DIGITS, NUMBERS, SHAPES, WORDS

TEXTS = [
    "a large red circle at the top left and a small orange star in the centre",
    "### Image:\n",
    "\n\n### Instruction:\nWhat colour is the circle?\n\n### Response:\n",
    "naïve café, 東京 🙂👩‍🚀 \t tabs\r\nand\x00 control",
    "two  spaces,   three",
    "</s> typed by somebody",
    "",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "tiny"
    # Enough scenes that every word of the world occurs.
    generate.main(
        [str(out), "--workers", "1", "--train-scenes", "240", "--heldout-scenes", "0", "--pretrain-scenes", "60"]
    )
    return out


@pytest.fixture(scope="module")
def tokenizer(data, tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer.main([str(data), str(folder)])
    return transformers.AutoTokenizer.from_pretrained(folder)


def test_layout_is_llamas(tokenizer):
    assert type(tokenizer).__name__ == "LlamaTokenizer"
    ids = tokenizer.convert_tokens_to_ids(["<unk>", "<s>", "</s>", "<0x00>", "<0xFF>"])
    assert ids == [0, 1, 2, 3, 258]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)
    assert 600 < len(tokenizer) <= train_tokenizer.SIZE
    assert tokenizer("red").input_ids[0] == 1
    assert tokenizer("red").input_ids[-1] != 2


def test_every_name_of_the_world_is_one_token(tokenizer):
    for word in (*COLOURS, *SHAPES, *WORDS, *NUMBERS[:5], *DIGITS, "Instruction", "Response", "Image", "Input"):
        assert len(ids(tokenizer, word)) == 1, tokenizer.tokenize(word)
    assert len(ids(tokenizer, "\nWhat")) == len(["▁", "<0x0A>", "What"])


def test_digits_are_never_joined(tokenizer):
    assert len(ids(tokenizer, "4 7")) == 2
    assert [piece.strip("▁") for piece in tokenizer.tokenize("407")] == ["4", "0", "7"]


def test_sentences_have_about_one_token_a_word(tokenizer, data):
    texts = train_tokenizer.data_texts(data)
    lengths = [(len(ids(tokenizer, text)), len(re.findall(r"\w+|[^\w\s]+", text))) for text in texts]
    assert sum(tokens for tokens, _ in lengths) <= 1.05 * sum(words for _, words in lengths)
    assert all(tokens <= words + 2 for tokens, words in lengths)


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_is_decoded_as_it_was(tokenizer, text):
    encoded = tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
    assert tokenizer.decode(encoded) == text
    assert tokenizer.unk_token_id not in encoded


def test_the_same_data_makes_the_same_tokenizer(data, tmp_path):
    for name in ("one", "two"):
        train_tokenizer.main([str(data), str(tmp_path / name)])
    one, two = ((tmp_path / name / "tokenizer.json").read_bytes() for name in ("one", "two"))
    assert one == two


def test_a_folder_without_annotations_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no annotation file.*" + tmp_path.name):
        train_tokenizer.data_texts(tmp_path)


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False).input_ids
