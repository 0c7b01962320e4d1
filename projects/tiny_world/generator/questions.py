"""Questions about a scene with exactly one correct answer.

Each family is a function (scene, rng) -> `Question`, or None when the scene allows no such question. rng is a
random.Random.
"""

from typing import NamedTuple

from .statements import absent_pair
from .vocabulary import (
    COLOURS,
    NUMBERS,
    POSITION_NAMES,
    RELATION_NAMES,
    SHAPES,
    article,
    pair_name,
    plural,
    position,
    related,
    relation,
    with_preposition,
)


class Question(NamedTuple):
    """A question, its answer, four options with the answer among them, and the reason as a sentence."""

    text: str
    answer: str
    choices: list
    reason: str


def ask_colour(scene, rng):
    """The colour of the only object of its shape."""
    thing = _only("shape", scene, rng)
    if thing is None:
        return None
    text = rng.choice(("What colour is the {}?", "Which colour does the {} have?")).format(thing["shape"])
    others = [o["colour"] for o in scene["objects"]]
    return Question(text, thing["colour"], options(thing["colour"], others, COLOURS, rng), _where(thing))


def ask_shape(scene, rng):
    """The shape of the only object of its colour."""
    thing = _only("colour", scene, rng)
    if thing is None:
        return None
    text = rng.choice(("What shape is the {} one?", "Which shape is {}?")).format(thing["colour"])
    others = [o["shape"] for o in scene["objects"]]
    return Question(text, thing["shape"], options(thing["shape"], others, SHAPES, rng), _where(thing))


def ask_count(scene, rng):
    """The number of objects, of all or of one colour or shape (then any number from zero on is equally likely)."""
    things = scene["objects"]
    if rng.random() < 0.5:
        noun, count = "shapes", len(things)
    else:
        noun, count = rng.choice((_count_of_colour, _count_of_shape))(things, rng)
    text = rng.choice(("How many {} are there?", "What is the number of {}?")).format(noun)
    reason = f"the number of {noun} is {NUMBERS[count]}"
    return Question(text, NUMBERS[count], options(NUMBERS[count], (), NUMBERS[:6], rng), reason)


def ask_position(scene, rng):
    """The cell of an object."""
    thing = rng.choice(scene["objects"])
    text = rng.choice(("Where is the {}?", "What is the position of the {}?")).format(pair_name(thing))
    others = [position(o) for o in scene["objects"]]
    return Question(text, position(thing), options(position(thing), others, POSITION_NAMES, rng), _where(thing))


def ask_yes_no(scene, rng):
    """Whether there is an object of some colour and shape; yes and no equally often."""
    if rng.random() < 0.5:
        thing = rng.choice(scene["objects"])
        name, answer, reason = pair_name(thing), "yes", _where(thing)
    else:
        name = absent_pair(scene, rng)
        answer, reason = "no", f"there is no {name}"
    text = rng.choice(("Is there {}?", "Do you see {}?")).format(article(name))
    return Question(text, answer, options(answer, (), ("yes", "no", "maybe", "not sure"), rng), reason)


def ask_relation(scene, rng):
    """The position of one object relative to another."""
    if len(scene["objects"]) < 2:
        return None
    one, two = rng.sample(scene["objects"], 2)
    answer = relation(one, two)
    wordings = ("Where is the {} relative to the {}?", "Seen from the {1}, where is the {0}?")
    text = rng.choice(wordings).format(pair_name(one), pair_name(two))
    reason = f"the {pair_name(one)} is {related(answer)} the {pair_name(two)}"
    return Question(text, answer, options(answer, (), RELATION_NAMES, rng), reason)


def ask_with_reason(scene, rng):
    """A question whose reason names colour, shape and position of one object."""
    return rng.choice((ask_colour, ask_shape, ask_position))(scene, rng)


FAMILIES = {
    "colour": ask_colour,
    "shape": ask_shape,
    "colour_options": ask_colour,
    "shape_options": ask_shape,
    "count": ask_count,
    "position": ask_position,
    "yes_no": ask_yes_no,
    "relation": ask_relation,
    "rationale": ask_with_reason,
}


def options(answer, near, all_names, rng):
    """Four options in random order: the answer, other names in the scene, and then other names of the kind."""
    near = [name for name in dict.fromkeys(near) if name != answer]
    far = [name for name in all_names if name != answer and name not in near]
    choices = [answer, *(rng.sample(near, len(near)) + rng.sample(far, len(far)))[:3]]
    rng.shuffle(choices)
    return choices


def _only(key, scene, rng):
    values = [o[key] for o in scene["objects"]]
    unique = [o for o in scene["objects"] if values.count(o[key]) == 1]
    return rng.choice(unique) if unique else None


def _where(thing):
    return f"the {pair_name(thing)} is {with_preposition(position(thing))}"


def _count_of_colour(things, rng):
    colour, count = _evenly([o["colour"] for o in things], list(COLOURS), rng)
    return f"{colour} shapes", count


def _count_of_shape(things, rng):
    shape, count = _evenly([o["shape"] for o in things], SHAPES, rng)
    return plural(shape), count


def _evenly(present, names, rng):
    """A name and its count in the scene, drawn such that each possible count is equally likely."""
    by_count = {}
    for name in names:
        by_count.setdefault(present.count(name), []).append(name)
    count = rng.choice(sorted(by_count))
    return rng.choice(by_count[count]), count
