"""Caption scores of COCO Caption, Flickr30k and NoCaps: BLEU, METEOR, ROUGE-L, CIDEr, SPICE through pycocoevalcap."""

import logging
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from subprocess import CalledProcessError

from mmengine.logging import print_log

from mmgpt.evaluation.metrics.answers import references

PACKAGE = "pycocoevalcap"
BLEU = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4")
SPICE_FILES = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
WORD = re.compile(r"\w+(?:['-]\w+)*")
Captions = dict[int, list[str]]  # of each image


def true_captions(sample: dict) -> list[str]:
    """A sample's references: its ``answers``, or its one ``answer``; without any a ValueError names the sample."""
    return sample.get("answers") or references(sample)


def judge_caption(sample: dict) -> dict:
    """What is kept of a sample: ``said``, one caption in a list, and ``true``, its references."""
    return {"said": [one_line(sample["prediction"])], "true": [one_line(text) for text in true_captions(sample)]}


def one_line(text: str) -> str:
    """A text without line breaks: the official tokenizer takes them for the next caption, '\\r' and the like too."""
    return " ".join(text.splitlines())


def caption_scores(rows: Sequence[dict]) -> dict[str, float]:
    """BLEU-1 to BLEU-4, METEOR, ROUGE-L, CIDEr and SPICE times 100, of rows of `judge_caption`.

    What cannot be computed is left out, with a line in the log that says why. Without Java there is no official
    tokenizer: then captions are split by a plain one, and all names begin with 'plain_', for the numbers are not
    comparable with those of others.

    CIDEr weighs words by how many of these rows have them: of a part of the images it is computed on that part alone,
    as it is done for NoCaps' domains.
    """
    said, true = (dict(enumerate(row[key] for row in rows)) for key in ("said", "true"))
    java = find_java()
    tokenize = _official_tokens if java else _plain_tokens
    said, true = tokenize(said), tokenize(true)
    scores = _ngram_scores(said, true)
    if not java:
        return {f"plain_{name}": score for name, score in scores.items()}
    return scores | _meteor(said, true) | _spice(said, true)


def find_java() -> bool:
    """Whether there is Java; without, a line in the log says what it costs."""
    java = shutil.which("java") is not None
    if not java:
        _warn("no Java: METEOR and SPICE are left out, and plain_ scores come from a plain tokenizer, not the official")
    return java


def _warn(text: str) -> None:
    print_log(f"captions: {text}", "current", logging.WARNING)


def _official_tokens(captions: Captions) -> Captions:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    return PTBTokenizer().tokenize({image: [{"caption": text} for text in texts] for image, texts in captions.items()})


def _plain_tokens(captions: Captions) -> Captions:
    """Captions in lower case, without punctuation."""
    return {image: [" ".join(WORD.findall(text.lower())) for text in texts] for image, texts in captions.items()}


def _ngram_scores(said: Captions, true: Captions) -> dict[str, float]:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    bleu, _ = Bleu(len(BLEU)).compute_score(true, said, verbose=0)
    rouge, _ = Rouge().compute_score(true, said)
    cider, _ = Cider().compute_score(true, said)
    scores = zip((*BLEU, "ROUGE-L", "CIDEr"), (*bleu, rouge, cider), strict=True)
    return {name: 100 * float(score) for name, score in scores}


def _meteor(said: Captions, true: Captions) -> dict[str, float]:
    from pycocoevalcap.meteor.meteor import Meteor

    score, _ = Meteor().compute_score(true, said)
    return {"METEOR": 100 * score}


def _spice(said: Captions, true: Captions) -> dict[str, float]:
    """SPICE, when its files are there; it would fetch them by itself otherwise, 400 MB."""
    from pycocoevalcap.spice import spice

    folder = Path(spice.__file__).parent / "lib"
    missing = [name for name in SPICE_FILES if not (folder / name).is_file()]
    if missing:
        _warn(f"SPICE is left out: {' and '.join(missing)} of Stanford CoreNLP are not in {folder}")
        return {}
    try:
        score, _ = spice.Spice().compute_score(true, said)
    except CalledProcessError as error:
        _warn(f"SPICE is left out: {error} (it was written for Java 8)")
        return {}
    return {"SPICE": 100 * float(score)}
