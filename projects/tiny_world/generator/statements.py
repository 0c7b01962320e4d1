"""Plain sentences about a scene: captions, descriptions, and statements for pretraining."""

from .vocabulary import (
    COLOURS,
    NUMBERS,
    PAIRS,
    SEEN_PAIRS,
    SHAPES,
    article,
    joined,
    pair_name,
    plural,
    position,
    related,
    relation,
    with_preposition,
)

OPENINGS = ("", "there is ", "a picture of ", "we see ", "the image shows ")


def captions(scene):
    """Five wordings of a caption of all objects of a scene of shapes, in reading order."""
    phrases = joined([f"a {o['size']} {pair_name(o)} {with_preposition(position(o))}" for o in scene["objects"]])
    return [opening + phrases for opening in OPENINGS]


def description(scene):
    """A scene of shapes in several sentences."""
    things = scene["objects"]
    lines = [f"the picture shows {_shapes(len(things))}."]
    lines += [f"{article(o['size'] + ' ' + pair_name(o))} is {with_preposition(position(o))}." for o in things]
    lines += [_related(one, two) for one, two in zip(things, things[1:], strict=False)]
    lines.append(f"the background is {'dark' if scene['dark'] else 'light'}.")
    return " ".join(lines)


def statements(scene, rng):
    """True, short statements about a scene, without duplicates.

    Args:
        scene (dict): see `scenes.draw_scene`.
        rng (random.Random): chooses the absent objects, and some of the relations where there are many.
    """
    if scene["kind"] == "word":
        return [f"the word is {scene['word']}.", f"it says {scene['word']}."]
    if scene["kind"] == "digits":
        return _digit_statements(scene)
    things = scene["objects"]
    lines = [rng.choice(captions(scene)) + ".", captions(scene)[0] + "."]
    for thing in things:
        lines += _about(thing, things)
    lines += [*_counts(things, rng), *_presence(scene, rng), *_relations(things, rng)]
    return list(dict.fromkeys(lines))


def _digit_statements(scene):
    count = len(scene["digits"])
    number = " ".join(str(d["digit"]) for d in scene["digits"])
    if count == 1:
        return [f"the number is {number}.", f"the digit is {number}.", "there is one digit."]
    return [f"the number is {number}.", f"the digits are {number}.", f"there are {NUMBERS[count]} digits."]


def _about(thing, things):
    name, where = pair_name(thing), with_preposition(position(thing))
    yield f"the {name} is {thing['size']}."
    yield f"the {name} is {where}."
    yield f"{where} is {article(name)}."
    if sum(o["shape"] == thing["shape"] for o in things) == 1:
        yield f"the {thing['shape']} is {thing['colour']}."
    if sum(o["colour"] == thing["colour"] for o in things) == 1:
        yield f"the {thing['colour']} shape is {article(thing['shape'])}."


def _shapes(count):
    return f"{NUMBERS[count]} {'shape' if count == 1 else 'shapes'}"


def _counts(things, rng):
    yield f"there {'is' if len(things) == 1 else 'are'} {_shapes(len(things))}."
    thing = rng.choice(things)
    for colour in (thing["colour"], rng.choice(list(COLOURS))):
        yield f"the number of {colour} shapes is {NUMBERS[sum(o['colour'] == colour for o in things)]}."
    for shape in (thing["shape"], rng.choice(SHAPES)):
        yield f"the number of {plural(shape)} is {NUMBERS[sum(o['shape'] == shape for o in things)]}."


def _presence(scene, rng):
    present = rng.sample(scene["objects"], min(2, len(scene["objects"])))
    absent = set()
    while len(absent) < len(present):
        absent.add(absent_pair(scene, rng))
    return [f"{article(pair_name(o))}: yes." for o in present] + [f"{article(name)}: no." for name in sorted(absent)]


def absent_pair(scene, rng):
    """The name of an object that a scene lacks; half of the time, an object in it has its colour or shape.

    Outside the held-out split, the unseen pairs are never named, or a model would learn that they do not occur.
    """
    present = {(o["colour"], o["shape"]) for o in scene["objects"]}
    colours, shapes = {colour for colour, _ in present}, {shape for _, shape in present}
    near, far = [], []
    for pair in PAIRS if scene["split"] == "heldout" else SEEN_PAIRS:
        if pair not in present:
            (near if pair[0] in colours or pair[1] in shapes else far).append(pair)
    return " ".join(rng.choice(near if not far or rng.random() < 0.5 else far))


def _relations(things, rng, most=4):
    pairs = [(one, two) for one in things for two in things if one is not two]
    for one, two in rng.sample(pairs, min(most, len(pairs))):
        yield _related(one, two)
        # With the relation at the end, the names of both objects do not give it away.
        yield f"relative to the {pair_name(two)} the {pair_name(one)} is {relation(one, two)}."


def _related(one, two):
    return f"the {pair_name(one)} is {related(relation(one, two))} the {pair_name(two)}."
