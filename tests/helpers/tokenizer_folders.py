"""Small folders with a tokenizer, in the layouts of real bases."""

import json

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from mmgpt.datasets.prompts import Segment
from mmgpt.datasets.transforms import TokenizeSegments
from tests.conftest import WORDS

CORPUS = [" ".join(WORDS[i:] + WORDS[:i]) + f"\n{i}, {i}." for i in range(len(WORDS))] * 20
MARKS = ["<|im_start|>", "<|im_end|>"]
NAMED = dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def write(folder, config=None, **files):
    """A folder with config.json of a Llama and other files of JSON."""
    folder.mkdir(exist_ok=True)
    files = {"config": dict(model_type="llama", bos_token_id=1, eos_token_id=2) if config is None else config, **files}
    for name, content in files.items():
        if content is not None:
            (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def plain(tokenizer, text):
    """Ids of a text as it comes from a user, without a start."""
    return TokenizeSegments(tokenizer, 9999, add_bos_token=False).encode([Segment(text)])[0]


def byte_level(added=(), **options):
    """A BPE over bytes with DeepSeek's kind of pre-tokenizer: digits, line breaks and words apart."""
    raw = Tokenizer(models.BPE(**options))
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex("[\r\n]"), "isolated"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    raw.train_from_iterator(CORPUS, trainer)
    raw.add_special_tokens(["<s>", "</s>", *added])
    return raw


def save(raw, folder, **files):
    folder = write(folder, **files)
    raw.save(str(folder / "tokenizer.json"))
    return str(folder)
