"""Tasks on text alone, whose answers have to be worked out from the words of the task."""

import zlib

from .vocabulary import COLOURS, DIGITS, NUMBERS, POSITION_NAMES, SHAPES, WORDS, with_preposition

WORD_POOL = (*WORDS, *COLOURS, *SHAPES)
HELD_OUT_INTERVAL = 8  # one of 8 lists of words is held out
ORDINALS = ("first", "second", "third")


def belongs(words, split):
    """Whether a task with these words belongs to a split ('heldout' or any other)."""
    held_out = zlib.crc32(words.encode()) % HELD_OUT_INTERVAL == 0
    return held_out == (split == "heldout")


def draw_task(task, split, rng):
    """A random record of a task that belongs to the split.

    Args:
        task (callable): rng -> (words of the task, record).
        split (str): 'heldout' or any other.
        rng (random.Random): the only source of randomness.
    """
    while True:
        words, record = task(rng)
        if belongs(words, split):
            return record


def dolly(rng):
    """A Dolly 15k record: a list of words as context, and a question about it."""
    words = _draw_words(rng, 3, 5)
    kind = rng.choice(("place", "last", "count", "twice"))
    if kind == "place":
        index = rng.randrange(3)
        question, answer = f"What is the {ORDINALS[index]} word?", words[index]
    elif kind == "last":
        question, answer = "What is the last word?", words[-1]
    else:
        word, times = words[0], rng.randint(1, 3) if kind == "count" else 2
        words = words + [word] * (times - 1)
        rng.shuffle(words)
        question, answer = "Which word occurs twice?", word
        if kind == "count":
            question, answer = f"How many times does the word {word} occur?", NUMBERS[times]
    text = " ".join(words)
    return text, dict(instruction=question, context=text, response=answer, category="closed_qa")


def alpaca(rng):
    """An Alpaca record: words to repeat, reverse or change, or the odd one out to find."""
    kind = rng.choice(("repeat", "reverse", "replace", "odd"))
    words = _draw_words(rng, 2, 4)
    if kind == "repeat":
        instruction, answer = "Repeat the words.", words
    elif kind == "reverse":
        instruction, answer = "Write the words backwards.", words[::-1]
    elif kind == "replace":
        old, new = rng.choice(words), _other_word(words, rng)
        instruction, answer = f"Replace {old} by {new}.", [new if word == old else word for word in words]
    else:
        usual, odd = words[:2]
        words = [usual] * rng.randint(2, 4) + [odd]
        rng.shuffle(words)
        instruction, answer = "Which word is the odd one out?", [odd]
    text = " ".join(words)
    return text, dict(instruction=instruction, input=text, output=" ".join(answer))


def baize(rng):
    """A Baize record: two or three facts, a turn each, and a question about one of them in the last turn."""
    facts = _draw_facts(rng)
    name, value = rng.choice(facts)
    turns = [(f"My {key} is {fact}.", "thank you") for key, fact in facts] + [(f"What was my {name}?", value)]
    lines = [f"[|Human|] {question}\n[|AI|] {answer}\n" for question, answer in turns]
    text = "The conversation between human and AI assistant.\n" + "".join(lines) + "[|Human|] "
    return _values(facts), dict(topic=name, input=text)


def plain_line(rng):
    """A line of plain text that holds copying and counting, without a question or an instruction."""
    words = _draw_words(rng, 2, 5)
    text = " ".join(words)
    kind = rng.randrange(6)
    if kind == 0:
        line = f"{text}. the first is {words[0]}. the last is {words[-1]}. backwards: {' '.join(words[::-1])}."
    elif kind == 1:
        index = rng.randrange(min(len(words), 3))
        line = f"{text}. the {ORDINALS[index]} word is {words[index]}. again: {text}."
    elif kind == 2:
        old, new = rng.choice(words), _other_word(words, rng)
        line = f"{text}. {new} for {old}: {' '.join(new if word == old else word for word in words)}."
    elif kind == 3:
        many = words + [words[0]] * rng.randint(0, 2)
        rng.shuffle(many)
        text = " ".join(many)
        line = f"{text}. " + " ".join(f"{word}: {NUMBERS[many.count(word)]}." for word in words)
    elif kind == 4:
        text, line = _recalled(rng)
    else:
        text, line = _answer_words(rng)
    return text, line


def _answer_words(rng):
    """Sentences with words that occur in answers and not in statements."""
    colour, shape, where = rng.choice(list(COLOURS)), rng.choice(SHAPES), rng.choice(POSITION_NAMES)
    thing = f"the {colour} {shape} is {with_preposition(where)}"
    closing = rng.choice(("thank you.", f"The answer was {shape}.", f"Because of the {shape}, thank you."))
    return thing, f"The answer is {rng.choice((colour, shape, where))}. Because {thing}. {closing}"


def _recalled(rng):
    facts = _draw_facts(rng)
    name, value = rng.choice(facts)
    line = " ".join(f"my {key} is {fact}." for key, fact in facts) + f" my {name} was {value}."
    return _values(facts), line


def _draw_facts(rng):
    facts = (("word", rng.choice(WORDS)), ("colour", rng.choice(list(COLOURS))), ("number", rng.choice(DIGITS)))
    return rng.sample(facts, rng.randint(2, 3))


def _values(facts):
    return " ".join(value for _, value in facts)


def _draw_words(rng, low, high):
    return rng.sample(WORD_POOL, rng.randint(low, high))


def _other_word(words, rng):
    return rng.choice([word for word in WORD_POOL if word not in words])
