"""Conversations of three turns about a scene, and questions about what is written in it."""

from .vocabulary import NUMBERS, position

READ_WORD = ("What is the word?", "What does it say?", "Which word is written here?")
READ_DIGITS = ("What is the number?", "Which number is written here?")


def three_turns(scene, rng):
    """Three (question, answer) turns about one object, or None when the scene has none that can be told apart.

    The third answer (a colour, a shape or a place) is told by neither of the first two; 'it' is the object of the
    first turn.
    """
    named_by, asked = rng.choice((("shape", "colour"), ("colour", "shape")))
    things = scene["objects"]
    unique = [o for o in things if sum(other[named_by] == o[named_by] for other in things) == 1]
    if not unique:
        return None
    thing = rng.choice(unique)
    name = f"the {thing['shape']}" if named_by == "shape" else f"the {thing['colour']} one"
    first, last = rng.sample((asked, "position"), 2)
    return [
        (_ask(first, name), _tell(first, thing)),
        _second(scene, thing, rng),
        (_ask(last, "it"), _tell(last, thing)),
    ]


def _ask(attribute, name):
    return f"Where is {name}?" if attribute == "position" else f"What {attribute} is {name}?"


def _tell(attribute, thing):
    return position(thing) if attribute == "position" else thing[attribute]


def _second(scene, thing, rng):
    if rng.random() < 0.5:
        return "Is it large or small?", thing["size"]
    return "How many shapes are there?", NUMBERS[len(scene["objects"])]


def reading(scene, rng):
    """A (question, answer) about the word or the digits of a scene; digits are read one by one: '4 7'."""
    if scene["kind"] == "word":
        return rng.choice(READ_WORD), scene["word"]
    return rng.choice(READ_DIGITS), " ".join(str(d["digit"]) for d in scene["digits"])
