"""Tasks on text alone. Each answer has to be worked out from the words given; no list of answers could hold it."""

import zlib

from .vocabulary import COLOURS, DIGITS, NUMBERS, POSITION_NAMES, SHAPES, WORDS, place

WORD_POOL = (*WORDS, *COLOURS, *SHAPES)
HELD_OUT_SHARE = 8  # one in so many lists of words is held out
PLACES = ("first", "second", "third")


def belongs(given, split):
    """Whether what a task gives may be used in a split ('heldout' or any other): settled by its words alone."""
    held_out = zlib.crc32(given.encode()) % HELD_OUT_SHARE == 0
    return held_out == (split == "heldout")


def draw_task(task, split, rng):
    """One record of a task, such as belongs to the split.

    Args:
        task (callable): rng -> (the words it gives, the record).
        split (str): 'heldout' or any other.
        rng (random.Random): the only source of chance.
    """
    while True:
        given, record = task(rng)
        if belongs(given, split):
            return record


def dolly(rng):
    """A Dolly 15k record: a list of words as context, and a question about it."""
    words = _draw_words(rng, 3, 5)
    kind = rng.choice(("place", "last", "count", "twice"))
    if kind == "place":
        index = rng.randrange(3)
        question, answer = f"What is the {PLACES[index]} word?", words[index]
    elif kind == "last":
        question, answer = "What is the last word?", words[-1]
    else:
        word, times = words[0], rng.randint(1, 3) if kind == "count" else 2
        words = words + [word] * (times - 1)
        rng.shuffle(words)
        question, answer = "Which word occurs twice?", word
        if kind == "count":
            question, answer = f"How many times does the word {word} occur?", NUMBERS[times]
    given = " ".join(words)
    return given, dict(instruction=question, context=given, response=answer, category="closed_qa")


def alpaca(rng):
    """An Alpaca record: words to repeat, turn round, change, or find the odd one in."""
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
    given = " ".join(words)
    return given, dict(instruction=instruction, input=given, output=" ".join(answer))


def baize(rng):
    """A Baize record: two or three things are told, a turn each, and one of them is asked back in the last turn."""
    told = _draw_facts(rng)
    name, value = rng.choice(told)
    turns = [(f"My {key} is {fact}.", "thank you") for key, fact in told] + [(f"What was my {name}?", value)]
    lines = [f"[|Human|] {question}\n[|AI|] {answer}\n" for question, answer in turns]
    text = "The conversation between human and AI assistant.\n" + "".join(lines) + "[|Human|] "
    return _facts_alone(told), dict(topic=name, input=text)


def plain_line(rng):
    """A line of plain text that holds copying and counting, without a question or an instruction."""
    words = _draw_words(rng, 2, 5)
    told = " ".join(words)
    kind = rng.randrange(6)
    if kind == 0:
        line = f"{told}. the first is {words[0]}. the last is {words[-1]}. backwards: {' '.join(words[::-1])}."
    elif kind == 1:
        index = rng.randrange(min(len(words), 3))
        line = f"{told}. the {PLACES[index]} word is {words[index]}. again: {told}."
    elif kind == 2:
        old, new = rng.choice(words), _other_word(words, rng)
        line = f"{told}. {new} for {old}: {' '.join(new if word == old else word for word in words)}."
    elif kind == 3:
        many = words + [words[0]] * rng.randint(0, 2)
        rng.shuffle(many)
        told = " ".join(many)
        line = f"{told}. " + " ".join(f"{word}: {NUMBERS[many.count(word)]}." for word in words)
    elif kind == 4:
        told, line = _recalled(rng)
    else:
        told, line = _spoken(rng)
    return told, line


def _spoken(rng):
    """Sentences with the words that answers have and statements have not."""
    colour, shape, where = rng.choice(list(COLOURS)), rng.choice(SHAPES), rng.choice(POSITION_NAMES)
    thing = f"the {colour} {shape} is {place(where)}"
    closing = rng.choice(("thank you.", f"The answer was {shape}.", f"Because of the {shape}, thank you."))
    return thing, f"The answer is {rng.choice((colour, shape, where))}. Because {thing}. {closing}"


def _recalled(rng):
    told = _draw_facts(rng)
    name, value = rng.choice(told)
    line = " ".join(f"my {key} is {fact}." for key, fact in told) + f" my {name} was {value}."
    return _facts_alone(told), line


def _draw_facts(rng):
    facts = (("word", rng.choice(WORDS)), ("colour", rng.choice(list(COLOURS))), ("number", rng.choice(DIGITS)))
    return rng.sample(facts, rng.randint(2, 3))


def _facts_alone(told):
    return " ".join(fact for _, fact in told)


def _draw_words(rng, low, high):
    return rng.sample(WORD_POOL, rng.randint(low, high))


def _other_word(words, rng):
    return rng.choice([word for word in WORD_POOL if word not in words])
