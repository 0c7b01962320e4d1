"""Command that trains the tiny world's tokenizer: byte-fallback BPE in Llama's layout, about one token a word.

    python projects/tiny_world/train_tokenizer.py data/tiny_pretrain data/tiny OUT_FOLDER

The folder loads with `transformers.AutoTokenizer`. The same data always gives the same tokenizer.
"""

import argparse
import json
import re
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from tqdm import tqdm

SPACE = "▁"
SPECIAL = ("<unk>", "<s>", "</s>")
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
SIZE = 900
# The text that prompts put around the data's own text.
PROMPT_TEXTS = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.",
    "### Image:\n### Instruction:\n### Input:\n### Response:",
    "Options: a, b, c, d.",
    "The answer is a. Because the reason is b.",
    "Describe the picture. Describe the picture in detail. What is shown? Describe the image. Write a caption.",
    "Give the reason, too. What is the reason? Why do you think so? Say why.",
)
# The prompt's fixed lines are one token each: every sample has them, and a tiny model pays for each token.
PROMPT_LINES = (
    "### Image:\n",
    "### Instruction:\n",
    "\n\n### Instruction:\n",
    "\n\n### Input:\n",
    "\n\n### Response:\n",
)
TEXT_KEYS = frozenset(
    "caption question choices direct_answers rationales questions answers value "
    "instruction context response input output".split()
)
SPEAKER = re.compile(r"\[\|\w+\|\]|<image>")  # marks between texts that parsers take out


def data_texts(folder):
    """All different texts in the annotation files below a folder of the tiny world, sorted.

    Raises:
        FileNotFoundError: there is no annotation file.
    """
    files = sorted(path for path in folder.rglob("*.json*") if path.parent != folder)
    if not files:
        raise FileNotFoundError(f"no annotation file (*.json, *.jsonl) in the folders of {folder}")
    texts = set()
    for path in tqdm(files, desc="files", unit="file"):
        content = path.read_text(encoding="utf-8")
        records = map(json.loads, content.splitlines()) if path.suffix == ".jsonl" else [json.loads(content)]
        for record in records:
            texts.update(turn.strip() for text in _strings(record) for turn in SPEAKER.split(text))
    return sorted(texts - {""})


def _strings(node, is_text=False):
    if isinstance(node, str):
        if is_text:
            yield node
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from _strings(value, key in TEXT_KEYS)
    elif isinstance(node, list):
        for value in node:
            yield from _strings(value, is_text)


def train(texts, size=SIZE):
    """A Llama tokenizer of `size` tokens: special tokens, bytes, characters, then merges within words."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(SPACE, prepend_scheme="first", split=True),
            pre_tokenizers.Split("\n", "removed"),  # a line break stays a byte, as in Llama's
            pre_tokenizers.Punctuation("contiguous"),
        ]
    )
    # A line break before a text stands for the prompt's: the first word must have a token without a space as well.
    corpus = [form for text in (*texts, *PROMPT_TEXTS) for form in (text, f"\n{text}")]
    trainer = trainers.BpeTrainer(vocab_size=size - len(SPECIAL) - len(BYTES), min_frequency=1, show_progress=False)
    learner.train_from_iterator(corpus, trainer)
    trained = json.loads(learner.to_str())["model"]
    pieces = sorted(trained["vocab"], key=trained["vocab"].get)
    return llama_tokenizer((*SPECIAL, *BYTES, *pieces), [tuple(pair) for pair in trained["merges"]])


def llama_tokenizer(tokens, merges):
    """A tokenizer that treats text as Llama's does: a space in front, unknown characters as bytes, BOS by default."""
    vocabulary = {token: number for number, token in enumerate(tokens)}
    model = models.BPE(vocab=vocabulary, merges=merges, unk_token=SPECIAL[0], fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(line, normalized=False) for line in PROMPT_LINES])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    return tokenizer


def save(tokenizer, folder):
    """Writes tokenizer.json and the tokenizer_config.json with which transformers loads it as LlamaTokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = dict(
        tokenizer_class="LlamaTokenizer",
        unk_token=SPECIAL[0],
        bos_token=SPECIAL[1],
        eos_token=SPECIAL[2],
        add_bos_token=True,
        add_eos_token=False,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def main(arguments=None):
    """Trains on one or more folders of data and saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+", help="folders that generate.py made")
    parser.add_argument("out", type=Path, help="folder to write the tokenizer to")
    args = parser.parse_args(arguments)
    texts = sorted({text for folder in args.data for text in data_texts(folder)})
    tokenizer = train(texts)
    save(tokenizer, args.out)
    print(f"{args.out}: {tokenizer.get_vocab_size()} tokens from {len(texts)} texts")


if __name__ == "__main__":
    main()
