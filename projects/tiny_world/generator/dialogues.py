"""Conversations of three turns about a scene, and questions about the word or the digits in it."""

from .vocabulary import NUMBERS, position

READ_WORD = ("What is the word?", "What does it say?", "Which word is written here?")
READ_DIGITS = ("What is the number?", "Which number is written here?")


def three_turns(scene, rng):
    """Three (question, answer) turns about one object, or None when no object of the scene is unique.

    The third answer (a colour, a shape or a position) is in neither of the first two; 'it' is the object of the first
    turn.
    """
    key, attribute = rng.choice((("shape", "colour"), ("colour", "shape")))
    things = scene["objects"]
    unique = [o for o in things if sum(other[key] == o[key] for other in things) == 1]
    if not unique:
        return None
    thing = rng.choice(unique)
    name = f"the {thing['shape']}" if key == "shape" else f"the {thing['colour']} one"
    first, last = rng.sample((attribute, "position"), 2)
    return [
        (_question(first, name), _answer(first, thing)),
        _second_turn(scene, thing, rng),
        (_question(last, "it"), _answer(last, thing)),
    ]


def _question(attribute, name):
    return f"Where is {name}?" if attribute == "position" else f"What {attribute} is {name}?"


def _answer(attribute, thing):
    return position(thing) if attribute == "position" else thing[attribute]


def _second_turn(scene, thing, rng):
    if rng.random() < 0.5:
        return "Is it large or small?", thing["size"]
    return "How many shapes are there?", NUMBERS[len(scene["objects"])]


def reading(scene, rng):
    """A (question, answer) pair about the word or the digits of a scene; digits are separate: '4 7'."""
    if scene["kind"] == "word":
        return rng.choice(READ_WORD), scene["word"]
    return rng.choice(READ_DIGITS), " ".join(str(d["digit"]) for d in scene["digits"])
