"""Random facts of a scene; see `draw_scene` for their layout."""

from . import drawing
from .vocabulary import CANVAS, PAIRS, RADII, SEEN_PAIRS, UNSEEN_PAIRS, WORDS

COUNTS, COUNT_WEIGHTS = (1, 2, 3, 4), (0.3, 0.4, 0.2, 0.1)
SHARED = 0.25  # probability that an object has the colour of an earlier one, and that it has its shape


def draw_scene(kind, split, rng, count=None, unseen=False, canvas=CANVAS):
    """The facts of one image, as they are written to scenes.json.

    Args:
        kind (str): 'shapes', 'word' or 'digits'.
        split (str): 'train', 'heldout' or 'pretrain'; only 'heldout' has the unseen pairs and the held-out scans.
        rng (np.random.Generator): the only source of randomness.
        count (int | None): number of objects; drawn when None.
        unseen (bool): begin with one of the unseen pairs of colour and shape.
        canvas (tuple): width and height of the image in pixels; things have the same sizes in pixels on all canvases.

    Returns:
        dict: kind, split, unseen (bool), dark (background), objects, word, digits, and further keys of the kind.
            Boxes are [x0, y0, x1, y1] in pixels, from the top left corner.
    """
    facts = dict(kind=kind, split=split, unseen=False, dark=bool(rng.random() < 0.5), objects=[], word=None, digits=[])
    if kind == "shapes":
        count = count or int(rng.choice(COUNTS, p=COUNT_WEIGHTS))
        facts["objects"] = _draw_objects(split, rng, count, unseen, canvas)
        facts["unseen"] = any((o["colour"], o["shape"]) in UNSEEN_PAIRS for o in facts["objects"])
    elif kind == "word":
        facts.update(_draw_word(rng, canvas))
    elif kind == "digits":
        facts["digits"] = _draw_digits(split, rng, canvas)
    else:
        raise ValueError(f"kind of scene {kind!r}: choose 'shapes', 'word' or 'digits'")
    return facts


def _draw_objects(split, rng, count, unseen, canvas):
    allowed = PAIRS if split == "heldout" else SEEN_PAIRS
    pairs = [UNSEEN_PAIRS[rng.integers(len(UNSEEN_PAIRS))]] if unseen else []
    while len(pairs) < count:
        pair = _next_pair(allowed, pairs, rng)
        if pair in allowed and pair not in pairs:  # a pair names one object
            pairs.append(pair)
    rng.shuffle(pairs)
    cells = sorted(rng.permutation(9)[:count].tolist())
    return [_draw_object(pair, *divmod(cell, 3), rng, canvas) for pair, cell in zip(pairs, cells, strict=True)]


def _next_pair(allowed, pairs, rng):
    colour, shape = allowed[rng.integers(len(allowed))]
    draw = rng.random()
    if not pairs or draw > 2 * SHARED:
        return colour, shape
    other = pairs[rng.integers(len(pairs))]
    return (other[0], shape) if draw < SHARED else (colour, other[1])


def _draw_object(pair, row, col, rng, canvas):
    size = ("small", "large")[rng.integers(2)]
    radius = RADII[size][rng.integers(3)]
    # Positions are multiples of half a pixel, so that a few hundred cached masks suffice for all images.
    cells = zip((col, row), canvas, strict=True)
    x, y = (_inside((cell + 0.5) * (side / 3) + rng.uniform(-2, 2), radius, side) for cell, side in cells)
    box = [x - radius, y - radius, x + radius, y + radius]
    return dict(colour=pair[0], shape=pair[1], size=size, row=row, col=col, box=box)


def _inside(centre, radius, side):
    return round(min(max(centre, radius + 0.5), side - radius - 0.5) * 2) / 2


def _draw_word(rng, canvas):
    word = WORDS[rng.integers(len(WORDS))]
    fits = [size for size in drawing.FONT_SIZES if drawing.word_mask(word, size).shape[1] <= canvas[0] - 4]
    size = int(fits[rng.integers(len(fits))])
    height, width = drawing.word_mask(word, size).shape
    return dict(word=word, font_size=size, box=_random_box(width, height, rng, canvas))


def _draw_digits(split, rng, canvas):
    scans = drawing.scan_split()["heldout" if split == "heldout" else "train"]
    count = int(rng.choice((1, 2, 3), p=(0.4, 0.35, 0.25)))
    side, gap = int(rng.integers(16, 21)), int(rng.integers(0, 2))
    x, y, _, _ = _random_box(count * (side + gap) - gap, side, rng, canvas)
    digits = []
    for scan in rng.choice(scans, count, replace=False).tolist():
        digit = int(drawing.digit_scans()[1][scan])
        digits.append(dict(digit=digit, scan=scan, box=[x, y, x + side, y + side]))
        x += side + gap
    return digits


def _random_box(width, height, rng, canvas):
    x, y = int(rng.integers(1, canvas[0] - width)), int(rng.integers(1, canvas[1] - height))
    return [x, y, x + width, y + height]
