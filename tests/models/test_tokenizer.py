"""Tokenizers of folders of every kind, which follow the folders' files where transformers' classes would not."""

import json
import re
from pathlib import Path
from shutil import copy, copytree

import pytest
import sentencepiece
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mmgpt.datasets.segments import Segment
from mmgpt.datasets.transforms import TokenizeSegments
from mmgpt.models.sentencepiece_file import PROBES
from mmgpt.models.special_tokens import starts_texts
from mmgpt.models.tokenizer import ADDED_TOKENS, load_tokenizer, save_tokenizer
from tests.helpers.tokenizer_folders import CORPUS, MARKS, NAMED, byte_level, plain, save, write

# Training arguments like those of the sentencepiece models of LLaMA, Gemma and T5.
AS_LLAMA = dict(
    model_type="bpe",
    vocab_size=400,
    byte_fallback=True,
    remove_extra_whitespaces=False,
    normalization_rule_name="identity",
    split_digits=True,
)
AS_GEMMA = dict(
    AS_LLAMA,
    add_dummy_prefix=False,
    user_defined_symbols=["<start_of_turn>", "[pause]", "\n\n", "▁▁", "▁▁▁", "\t"],
    pad_id=0,
    eos_id=1,
    bos_id=2,
    unk_id=3,
)
AS_T5 = dict(model_type="unigram", vocab_size=90, hard_vocab_limit=False, bos_id=-1, pad_id=0, eos_id=1, unk_id=2)
UNIGRAM = dict(AS_LLAMA, model_type="unigram", hard_vocab_limit=False)
LINES = dict(AS_LLAMA, user_defined_symbols=["\n", "▁▁"])  # with a space in front of texts
SENTENCEPIECE = dict(llama=AS_LLAMA, gemma=AS_GEMMA, t5=AS_T5, unigram=UNIGRAM, lines=LINES)
OBJECT = {"__type": "AddedToken", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
CONFIGS = dict(
    none=None,
    class_alone=dict(tokenizer_class="LlamaTokenizer"),
    class_of_2023=dict(NAMED, tokenizer_class="LLaMATokenizer", model_max_length=10**30),
    nothing_named=dict(dict.fromkeys(NAMED, ""), tokenizer_class="LLaMATokenizer"),
    objects=dict(
        {k: dict(OBJECT, content=v) for k, v in NAMED.items()}, tokenizer_class="LlamaTokenizer", legacy=False
    ),
)


@pytest.fixture(scope="session")
def sentencepiece_file(tmp_path_factory):
    """Trains a sentencepiece model of a name, once."""
    folder = tmp_path_factory.mktemp("sentencepiece")

    def train(name):
        file = folder / f"{name}.model"
        if not file.exists():
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(CORPUS), model_prefix=str(folder / name), minloglevel=2, **SENTENCEPIECE[name]
            )
        return file

    return train


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", SENTENCEPIECE)
def test_tokenizer_model_encodes_as_sentencepiece_does(sentencepiece_file, tmp_path, name, config):
    folder = write(tmp_path / "base", tokenizer_config=CONFIGS[config])
    copy(sentencepiece_file(name), folder / "tokenizer.model")
    tokenizer, model = (
        load_tokenizer(str(folder)),
        sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model")),
    )
    assert len(tokenizer) == model.piece_size() + 3
    for text in (*PROBES, *CORPUS[:2], "\tx\n\n\ny", "a   <b", "x\n y"):
        assert plain(tokenizer, text) == model.encode(text)
        if name != "t5":  # which takes spaces in a row for one, and has no bytes
            assert tokenizer.decode(model.encode(text)) == text
    tokens = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
    assert tokens == (None if model.bos_id() < 0 else model.bos_id(), model.eos_id(), model.unk_id())


@pytest.mark.parametrize("name", SENTENCEPIECE)
def test_control_and_marks_of_a_sentencepiece_model_are_not_typed(sentencepiece_file, tmp_path, name):
    folder = write(tmp_path / "base")
    copy(sentencepiece_file(name), folder / "tokenizer.model")
    tokenizer = load_tokenizer(str(folder))
    typed = "a</s>b <s> <unk><image>[pause]<start_of_turn>red"
    ids, names = plain(tokenizer, typed), ["[pause]", "<start_of_turn>", *tokenizer.all_special_tokens]
    unknown = {tokenizer.unk_token} if name == "t5" else set()
    assert not set(names) - unknown & set(tokenizer.convert_ids_to_tokens(ids))
    if not unknown:
        assert tokenizer.decode(ids, skip_special_tokens=True) == typed


def test_placeholders_get_the_names_that_the_folder_gives(sentencepiece_file, tmp_path):
    added = {"4": dict(content="<|im_end|>", special=True), "400": dict(content="<|new|>", special=True)}
    config = dict(NAMED, eos_token="<|im_end|>", added_tokens_decoder=added)
    folder = write(tmp_path / "base", dict(eos_token_id=4), tokenizer_config=config)
    copy(sentencepiece_file("gemma"), folder / "tokenizer.model")
    tokenizer = load_tokenizer(str(folder))
    assert tokenizer.eos_token_id == 4
    assert tokenizer.convert_tokens_to_ids(["<|new|>", *ADDED_TOKENS]) == [
        400,
        401,
        402,
    ]


@pytest.mark.parametrize("name", ["gemma", "lines"])
def test_ordinary_pieces_that_the_folder_lists_as_added_are_encoded_as_before(sentencepiece_file, tmp_path, name):
    model = sentencepiece.SentencePieceProcessor(str(sentencepiece_file(name)))
    pieces = {str(model.piece_to_id(piece)): piece for piece in SENTENCEPIECE[name]["user_defined_symbols"]}
    added = {i: dict(OBJECT, content=piece, normalized=False, special=False) for i, piece in pieces.items()}
    folder = write(tmp_path / "base", tokenizer_config=dict(NAMED, added_tokens_decoder=added))
    copy(sentencepiece_file(name), folder / "tokenizer.model")
    tokenizer = load_tokenizer(str(folder))
    assert [plain(tokenizer, text) for text in PROBES] == [model.encode(text) for text in PROBES]


def test_a_tokenizer_json_that_encodes_words_otherwise_than_its_tokenizer_model_is_refused(
    sentencepiece_file, tmp_path
):
    folder = write(tmp_path / "base", tokenizer_config=NAMED)
    copy(sentencepiece_file("llama"), folder / "tokenizer.model")
    load_tokenizer(str(folder)).save_pretrained(folder)
    assert plain(load_tokenizer(str(folder)), "the") == plain(load_tokenizer(str(folder)), "the")
    file = folder / "tokenizer.json"
    state = json.loads(file.read_text())
    state["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}  # no space in front
    file.write_text(json.dumps(state))
    with pytest.raises(
        ValueError, match="base: tokenizer.json and tokenizer.model encode 'The red circle' differently"
    ):
        load_tokenizer(str(folder))


@pytest.mark.parametrize(
    "name", ["LlamaTokenizerFast", "LlamaTokenizer", "PreTrainedTokenizerFast", "GPT2Tokenizer", None]
)
@pytest.mark.parametrize("model_type", ["llama", "qwen2", "deepseek_v3"])
def test_a_byte_level_tokenizer_json_is_used_as_it_is(tmp_path, name, model_type):
    raw = byte_level()
    config = {**dict(bos_token="<s>", eos_token="</s>"), **(dict(tokenizer_class=name) if name else {})}
    folder = save(raw, tmp_path / "base", config=dict(model_type=model_type), tokenizer_config=config)
    tokenizer = load_tokenizer(folder)
    for text in PROBES:
        assert plain(tokenizer, text) == raw.encode(text).ids
        assert tokenizer.decode(raw.encode(text).ids) == text
    assert len(tokenizer) == raw.get_vocab_size() + 3


def test_tokenizer_json_alone_has_its_own_start_and_the_end_of_the_config(tmp_path):
    raw = byte_level()
    start, end = raw.token_to_id("<s>"), raw.token_to_id("</s>")
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", start)])
    folder = save(raw, tmp_path / "base", config=dict(model_type="llama", eos_token_id=end))
    tokenizer = load_tokenizer(folder)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (start, end)
    (tmp_path / "base/config.json").unlink()
    with pytest.raises(ValueError, match="base: the tokenizer has no end of sequence.*set eos_token"):
        load_tokenizer(folder)


def test_an_empty_start_is_the_one_that_the_file_puts_in_front(tmp_path):
    raw, config = byte_level(), dict(bos_token="", eos_token="</s>", unk_token="", pad_token="")
    assert load_tokenizer(save(raw, tmp_path / "none", tokenizer_config=config)).bos_token is None
    raw.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", raw.token_to_id("<s>"))])
    assert load_tokenizer(save(raw, tmp_path / "one", tokenizer_config=config)).bos_token == "<s>"


@pytest.mark.parametrize("model_type", ["gpt2", "qwen2"])
def test_vocab_and_merges_are_read_by_transformers_class(tmp_path, model_type):
    raw = byte_level(["<|endoftext|>"])
    state = json.loads(raw.to_str())
    folder = write(tmp_path / "base", config=dict(model_type=model_type), vocab=raw.get_vocab())
    merges = [" ".join(pair) for pair in state["model"]["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    tokenizer = load_tokenizer(str(folder))
    for text in PROBES:
        assert tokenizer.decode(plain(tokenizer, text)) == text
    assert tokenizer.eos_token == "<|endoftext|>"
    assert len(tokenizer) == raw.get_vocab_size() + 3


def test_a_tokenizer_whose_file_lowercases_is_accepted(tmp_path):
    raw = byte_level()
    raw.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.NFKC()])
    tokenizer = load_tokenizer(save(raw, tmp_path / "base", tokenizer_config=NAMED))
    assert tokenizer.decode(plain(tokenizer, "The RED  Circle")) == "the red  circle"


def test_a_tokenizer_that_loses_spaces_is_refused(tmp_path):
    raw = byte_level()
    raw.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), raw.pre_tokenizer])
    folder = save(raw, tmp_path / "base", tokenizer_config=NAMED)
    with pytest.raises(ValueError, match="base: the tokenizer loses spaces between words: 'the red .* as 'thered"):
        load_tokenizer(folder)


def test_a_tokenizer_whose_merges_are_missing_is_refused(tmp_path):
    """transformers converts some GGUF files into such tokenizers, which spell each word."""
    state = json.loads(byte_level().to_str())
    state["model"]["merges"] = []
    folder = write(tmp_path / "base", tokenizer=state, tokenizer_config=NAMED)
    with pytest.raises(ValueError, match="base: the tokenizer's merges are missing: it spells '.*', but has a token '"):
        load_tokenizer(str(folder))


CHAT = dict(NAMED, eos_token="<|im_end|>", bos_token=None)


@pytest.mark.parametrize(
    "further",
    [
        dict(tokenizer_config=dict(CHAT, additional_special_tokens=MARKS)),
        dict(tokenizer_config=dict(CHAT, extra_special_tokens=MARKS)),
        dict(tokenizer_config=dict(CHAT, extra_special_tokens=dict(role_token=MARKS[0]))),
        dict(tokenizer_config=dict(CHAT, role_token=dict(OBJECT, content=MARKS[0]))),
        dict(tokenizer_config=dict(CHAT, eos_token=""), special_tokens_map=dict(eos_token=MARKS[1], bos_token="")),
        dict(tokenizer_config=CHAT, special_tokens_map=dict(additional_special_tokens=[dict(content=MARKS[0])])),
        dict(tokenizer_config=CHAT),
    ],
)
@pytest.mark.parametrize("special", [True, False])
def test_special_tokens_of_the_base_stay_special(tmp_path, further, special):
    raw = byte_level()
    raw.add_tokens([AddedToken(token, special=special) for token in MARKS])
    tokenizer = load_tokenizer(save(raw, tmp_path / "base", **further))
    names = [*MARKS, *ADDED_TOKENS, "<PAD>", "<s>", "</s>"]
    assert set(names) <= set(tokenizer.all_special_tokens)
    ids = tokenizer.convert_tokens_to_ids(names)
    assert ids[:5] == list(range(raw.token_to_id(MARKS[0]), len(tokenizer)))
    typed = " ".join(names)
    assert not set(ids) & set(plain(tokenizer, typed))
    assert tokenizer.decode([ids[0], *plain(tokenizer, typed), *ids], skip_special_tokens=True) == typed


def test_tokens_that_the_base_has_already_keep_their_ids(tmp_path):
    raw = byte_level(["<PAD>", "<image>"])
    known = raw.get_vocab()
    tokenizer = load_tokenizer(save(raw, tmp_path / "base", tokenizer_config=NAMED))
    assert tokenizer.convert_tokens_to_ids(["<PAD>", "<image>"]) == [known["<PAD>"], known["<image>"]]
    assert tokenizer.convert_tokens_to_ids("<|endofchunk|>") == len(tokenizer) - 1 == len(known)
    assert "<image>" in tokenizer.decode(plain(tokenizer, "<image>"), skip_special_tokens=True)


@pytest.fixture
def logged(monkeypatch):
    """The lines that loading logs."""
    lines = []
    monkeypatch.setattr("mmgpt.models.tokenizer.print_log", lambda line, logger, level: lines.append(line))
    return lines


@pytest.mark.parametrize(
    ("tokenizer_config", "config", "generation_config", "start", "end", "warning"),
    [
        # From a GGUF file: the end of sequence of the tokenizer begins texts.
        (
            dict(bos_token=MARKS[0], eos_token=MARKS[0]),
            (0, 1),
            1,
            MARKS[0],
            MARKS[1],
            "eos_token is '<|im_start|>' (",
        ),
        (dict(bos_token=MARKS[0], eos_token=MARKS[0]), (0, None), 1, MARKS[0], MARKS[1], "generation_config.json has"),
        # One token for both, as GPT-2 has it.
        (dict(bos_token=MARKS[1], eos_token=MARKS[1]), (1, 1), None, MARKS[1], MARKS[1], None),
        # LLaMA of early 2023: the config is wrong.
        (dict(bos_token="<s>", eos_token="</s>"), (1, -2), None, "<s>", "</s>", "'</s>' is used"),
        # Several ends, as Llama 3 has them; a chat model whose config.json is still the base's.
        (dict(bos_token="<s>", eos_token=MARKS[1]), (-2, [-1, 1]), None, "<s>", MARKS[1], None),
        (dict(bos_token="<s>", eos_token=MARKS[1]), (-2, -1), [1, -1], "<s>", MARKS[1], None),
        (dict(bos_token="<s>", eos_token=MARKS[1]), (-2, -1), None, "<s>", MARKS[1], "'<|im_end|>' is used"),
        # Without an end, with an empty one, or with one that is not in the vocabulary.
        (dict(bos_token="<s>", eos_token=None), (-2, -1), None, "<s>", "</s>", "eos_token is not set, config.json has"),
        (dict(bos_token="", eos_token="", unk_token=""), (-2, -1), None, None, "</s>", "eos_token is not set"),
        (dict(bos_token=None, eos_token="<end>"), (-2, -1), None, None, "</s>", "'<end>' (not in its vocabulary)"),
        (dict(bos_token="<start>", eos_token="</s>"), (-2, -1), None, "<s>", "</s>", "'<start>' (not in its"),
        (dict(bos_token=None, eos_token="</s>"), (-2, -1), None, None, "</s>", None),
        (dict(bos_token="", eos_token="</s>", pad_token=""), (-2, -1), None, None, "</s>", None),
    ],
)
def test_start_and_end_by_tokenizer_and_config(
    tmp_path, logged, tokenizer_config, config, generation_config, start, end, warning
):
    raw, ends = byte_level(MARKS), ["<|im_start|>", "<|im_end|>", "<s>", "</s>"]

    def ids(numbers):
        several = isinstance(numbers, list)
        tokens = [raw.token_to_id(ends[number]) for number in (numbers if several else [numbers])]
        return tokens if several else tokens[0]

    files = dict(
        config={f"{role}_token_id": ids(n) for role, n in zip(("bos", "eos"), config, strict=True) if n is not None},
        generation_config=None if generation_config is None else dict(eos_token_id=ids(generation_config)),
        tokenizer_config=dict(tokenizer_config, tokenizer_class="LlamaTokenizer"),
    )
    tokenizer = load_tokenizer(save(raw, tmp_path / "base", **files))
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (start, end, "<PAD>")
    load_tokenizer(str(tmp_path / "base"))
    assert len(set(logged)) == len(logged)  # once a process
    assert not logged if warning is None else warning in logged[-1]
    assert all(line.startswith(f"{tmp_path}/base: the tokenizer's ") for line in logged)


def test_an_end_beyond_the_models_table_is_not_used(tmp_path, logged):
    raw = byte_level()
    size = raw.get_vocab_size()
    raw.add_special_tokens(["<new>"])
    config = dict(vocab_size=size, eos_token_id=raw.token_to_id("</s>"))
    folder = save(raw, tmp_path / "base", config=config, tokenizer_config=dict(NAMED, eos_token="<new>"))
    assert load_tokenizer(folder).eos_token == "</s>"
    assert "'<new>' (337), config.json has '</s>' (336); '</s>' is used" in logged[0]


@pytest.mark.parametrize("eos", [None, "", "<end>", dict(OBJECT, content="")])
@pytest.mark.parametrize("config", [{}, dict(eos_token_id=None), dict(eos_token_id=5000), dict(eos_token_id=[-1])])
@pytest.mark.parametrize("empty", [dict(bos_token="", unk_token=""), dict(bos_token="<s>")])
def test_a_tokenizer_without_an_end_of_sequence_is_refused(tmp_path, eos, config, empty):
    names = dict(empty, eos_token=eos, tokenizer_class="LlamaTokenizer")
    folder = save(byte_level(), tmp_path / "base", config=dict(config, model_type="llama"), tokenizer_config=names)
    with pytest.raises(
        ValueError, match="base: the tokenizer has no end of sequence.*: set eos_token in [^.]*.json to"
    ):
        load_tokenizer(folder)


def test_the_start_is_never_used_as_the_end(tmp_path):
    raw = byte_level()
    config = dict(bos_token_id=0, eos_token_id=raw.token_to_id("<s>"))  # as in early 2023
    folder = save(raw, tmp_path / "base", config=config, tokenizer_config=dict(bos_token="<s>", eos_token=""))
    with pytest.raises(ValueError, match="no end of sequence"):
        load_tokenizer(folder)


def test_holes_in_a_vocabulary_are_filled_before_tokens_are_added(tmp_path):
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: i for i, letter in enumerate(letters)} | {"</s>": 256, "ab": 300, "abc": 301}
    raw = Tokenizer(models.BPE(vocabulary, [("a", "b"), ("ab", "c")]))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(False), decoders.ByteLevel()
    state = json.loads(raw.to_str())
    added = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    state["added_tokens"] = [dict(added, id=302, content="<s>"), dict(added, id=305, content="<|im_end|>")]
    folder = write(tmp_path / "base", tokenizer=state, tokenizer_config=NAMED)
    tokenizer = load_tokenizer(str(folder))
    assert vocabulary.items() <= tokenizer.get_vocab().items()
    assert tokenizer.convert_tokens_to_ids(["<s>", "<|im_end|>", *ADDED_TOKENS]) == [302, 305, 306, 307]
    assert tokenizer.decode(plain(tokenizer, "abc ab c")) == "abc ab c"
    assert plain(tokenizer, "abc") == [301]


def test_added_tokens_whose_ids_are_taken_are_refused(tmp_path):
    raw = byte_level()
    state = json.loads(raw.to_str())
    state["added_tokens"].append(dict(state["added_tokens"][0], id=70, content="<new>"))
    with pytest.raises(ValueError, match="tokenizer.json: .*'<new>', 70"):
        load_tokenizer(str(write(tmp_path / "one", tokenizer=state, tokenizer_config=NAMED)))
    for files in (
        dict(tokenizer_config=dict(NAMED, added_tokens_decoder={"70": dict(content="<new>")})),
        dict(tokenizer_config=NAMED, added_tokens={"<new>": 70}),
    ):
        with pytest.raises(ValueError, match=r"two: .* give '<new>' the id 70, which is '.*' in the vocabulary"):
            load_tokenizer(save(raw, tmp_path / "two", **files))
        (tmp_path / "two/tokenizer_config.json").unlink()


def test_tokens_of_added_tokens_json_get_its_ids(tmp_path):
    raw = byte_level()
    size = raw.get_vocab_size()
    added = {"<|im_end|>": size + 1, "<|im_start|>": size}
    tokenizer = load_tokenizer(
        save(raw, tmp_path / "base", tokenizer_config=dict(NAMED, eos_token="<|im_end|>"), added_tokens=added)
    )
    assert tokenizer.convert_tokens_to_ids([*MARKS, *ADDED_TOKENS]) == list(range(size, size + 4))
    assert tokenizer.decode([tokenizer.eos_token_id], skip_special_tokens=True) == ""


@pytest.mark.parametrize(("name", "content"), [("tokenizer", "{"), ("tokenizer_config", "[]"), ("config", "{'a'}")])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, content):
    folder = save(byte_level(), tmp_path / "base", tokenizer_config=NAMED)
    (tmp_path / f"base/{name}.json").write_text(content)
    with pytest.raises(ValueError, match=rf"base/{name}.json"):
        load_tokenizer(folder)


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    folder = write(tmp_path / "base")
    (folder / "tokenizer.model").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 499723\n")
    with pytest.raises(ValueError, match="base: transformers makes no tokenizer of this folder: "):
        load_tokenizer(str(folder))


def folders_of_every_kind(sentencepiece_file, tmp_path):
    """A folder of each kind."""
    for name in SENTENCEPIECE:
        copy(sentencepiece_file(name), write(tmp_path / name) / "tokenizer.model")
        yield tmp_path / name
    raw = byte_level(MARKS)
    raw.add_tokens([AddedToken("<think>", special=False)])
    config = dict(NAMED, eos_token="<|im_end|>", bos_token=None, tokenizer_class="Qwen2Tokenizer", image_token="<s>")
    # A start that the file puts in front and the folder does not want.
    raw.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", raw.token_to_id("<s>"))]
    )
    yield Path(save(raw, tmp_path / "null", tokenizer_config=dict(NAMED, bos_token=None)))
    yield Path(save(raw, tmp_path / "chat", config=dict(model_type="qwen2", bos_token_id=2), tokenizer_config=config))
    yield Path(copytree(Path(__file__).parents[2] / "checkpoints/tiny/language", tmp_path / "tiny"))


def test_a_saved_tokenizer_is_the_same(sentencepiece_file, tmp_path):
    for folder in folders_of_every_kind(sentencepiece_file, tmp_path):
        tokenizer = load_tokenizer(str(folder))
        for target in (tmp_path / "alone", folder):  # as `export` and as `merge` and `base` write it
            save_tokenizer(tokenizer, target)
            again = load_tokenizer(str(target))
            assert again.get_vocab() == tokenizer.get_vocab()
            assert again.special_tokens_map == tokenizer.special_tokens_map
            assert set(again.all_special_ids) == set(tokenizer.all_special_ids)
            assert [plain(again, text) for text in PROBES] == [plain(tokenizer, text) for text in PROBES]
        reference = AutoTokenizer.from_pretrained(tmp_path / "alone")
        assert reference.get_vocab() == tokenizer.get_vocab()
        assert [reference.encode(text, add_special_tokens=False) for text in PROBES] == [
            plain(again, t) for t in PROBES
        ]


def test_settings_beside_the_vocabulary_are_kept(tmp_path):
    config = dict(NAMED, model_max_length=77, padding_side="left", clean_up_tokenization_spaces=True)
    folder = save(byte_level(), tmp_path / "base", tokenizer_config=config)
    (tmp_path / "base/chat_template.jinja").write_text("{{ messages }}")
    tokenizer = load_tokenizer(folder)
    assert (tokenizer.model_max_length, tokenizer.padding_side, tokenizer.chat_template) == (
        77,
        "left",
        "{{ messages }}",
    )
    assert tokenizer.clean_up_tokenization_spaces is False
    assert type(tokenizer) is PreTrainedTokenizerFast


@pytest.mark.parametrize(
    "files, starts",
    [
        (dict(), False),  # SmolLM2's, and GPT-2's
        (dict(post_processor=True), True),  # Llama 3's
        (dict(add_bos_token=True), True),  # DeepSeek's, whose class adds it
        (dict(post_processor=True, add_bos_token=False), False),
        (dict(bos_token=None, add_bos_token=True), False),
    ],
)
def test_the_start_of_sequence_is_put_where_the_folder_says(tmp_path, files, starts):
    raw, files = byte_level(), dict(files)
    if files.pop("post_processor", False):
        pair = [("<s>", raw.token_to_id("<s>"))]
        raw.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=pair)
    tokenizer = load_tokenizer(save(raw, tmp_path / "base", tokenizer_config={**NAMED, **files}))
    save_tokenizer(tokenizer, tmp_path / "saved")
    for each in (tokenizer, load_tokenizer(str(tmp_path / "saved"))):
        assert starts_texts(each) is starts
        ids, _ = TokenizeSegments(each, 99).encode([Segment("red")])
        assert ids == [*([each.bos_token_id] if starts else []), *plain(each, "red")]
    forced, _ = TokenizeSegments(tokenizer, 99, add_bos_token=True).encode([Segment("red")])
    assert forced == ([] if tokenizer.bos_token is None else [tokenizer.bos_token_id]) + plain(tokenizer, "red")


def test_the_tokenizer_of_a_sentencepiece_model_puts_its_start_in_front(sentencepiece_file, tmp_path):
    # A folder of tokenizer.json alone with such a vocabulary is LLaMA's too: conftest.tiny_llama.
    for number, (config, starts) in enumerate([(NAMED, True), (dict(NAMED, add_bos_token=False), False)]):
        folder = write(tmp_path / f"base{number}", tokenizer_config=config)
        copy(sentencepiece_file("llama"), folder / "tokenizer.model")
        tokenizer = load_tokenizer(str(folder))
        save_tokenizer(tokenizer, tmp_path / "saved")
        again = AutoTokenizer.from_pretrained(tmp_path / "saved")
        assert [starts_texts(each) for each in (tokenizer, load_tokenizer(str(tmp_path / "saved")), again)] == [
            starts
        ] * 3


@pytest.mark.parametrize(
    "key, value, expected",
    [
        ("eos_token", ["</s>"], "a text, or an object with it as `content`"),
        ("pad_token", {"content": 3}, "a text, or"),
        ("additional_special_tokens", ["<x>", 3], "a list or an object of tokens"),
        ("extra_special_tokens", "<x>", "a list or an object of tokens"),
        ("added_tokens_decoder", {"x": {"content": "<x>"}}, "an object of ids"),
        ("added_tokens_decoder", {"5": "<x>"}, "an object of ids"),
        ("model_max_length", "512", "a number"),
        ("padding_side", "middle", "'left' or 'right'"),
        ("chat_template", 5, "a text, or a list"),
    ],
)
def test_a_setting_of_a_wrong_type_is_named(tiny_llama, tmp_path, key, value, expected):
    file = copytree(tiny_llama, tmp_path / "base") / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    with pytest.raises(
        ValueError, match=rf"tokenizer_config.json: {key}={re.escape(repr(value))}: expected {expected}"
    ):
        load_tokenizer(str(file.parent))


def test_new_tokens_take_no_id_of_a_vocabulary_with_a_gap(tmp_path):
    """Of vocab.json and merges.txt too; the tokenizers library counts tokens, and gave the id of another one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<|end|>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["the red circle is a of 1 blue square"] * 9, trainer)
    tokenizer.model.save(str(tmp_path))
    ids = json.loads((tmp_path / "vocab.json").read_text())
    ids = {token: i + 7 * (i > 200) for token, i in ids.items()}
    (tmp_path / "vocab.json").write_text(json.dumps(ids))
    tokens = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|end|>")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(dict(tokens, tokenizer_class="GPT2Tokenizer")))
    (tmp_path / "config.json").write_text(json.dumps(dict(model_type="gpt2")))
    vocabulary = load_tokenizer(str(tmp_path)).get_vocab()
    assert ids.items() <= vocabulary.items()
    assert len(set(vocabulary.values())) == len(vocabulary)
    assert vocabulary["<image>"] > max(ids.values())
