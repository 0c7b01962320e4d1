"""Names of the tiny world, and the rules of grammar for them."""

CANVAS = (64, 64)  # pixels, width and height
COLOURS = {
    "red": (214, 32, 36),
    "green": (38, 158, 60),
    "blue": (40, 72, 216),
    "yellow": (240, 214, 30),
    "purple": (128, 40, 168),
    "orange": (244, 128, 16),
    "cyan": (24, 196, 208),
    "pink": (250, 136, 190),
}
SHAPES = ("circle", "square", "triangle", "star", "cross")
RADII = {"small": (5.5, 6.0, 6.5), "large": (8.5, 9.0, 9.5)}  # pixels
# No two of them share a colour or a shape, so that a model must combine a known colour with a known shape.
UNSEEN_PAIRS = (("red", "star"), ("green", "circle"), ("blue", "triangle"), ("yellow", "cross"))
PAIRS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
SEEN_PAIRS = tuple(pair for pair in PAIRS if pair not in UNSEEN_PAIRS)
POSITIONS = (
    ("top left", "top centre", "top right"),
    ("middle left", "centre", "middle right"),
    ("bottom left", "bottom centre", "bottom right"),
)
POSITION_NAMES = tuple(name for row in POSITIONS for name in row)
RELATIONS = (
    ("above and left", "above", "above and right"),
    ("left", "", "right"),
    ("below and left", "below", "below and right"),
)
RELATION_NAMES = tuple(name for row in RELATIONS for name in row if name)
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
WORDS = tuple(
    "moon cat dog sun tree fish bird book house apple bread milk ship rain snow wind "
    "fire lake rock sand door lamp ring bell cup hat key map pen bus king horse".split()
)
DIGITS = tuple("0123456789")


def article(noun):
    """The noun with its indefinite article: 'a red circle', 'an orange star'."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def plural(noun):
    """The plural of a noun of the world: 'circles', 'crosses'."""
    return noun + ("es" if noun.endswith("s") else "s")


def joined(phrases):
    """Phrases as a list in a sentence: 'a', 'a and b', 'a, b and c'."""
    return phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " and " + phrases[-1]


def pair_name(thing):
    """The name of an object: 'red circle'."""
    return f"{thing['colour']} {thing['shape']}"


def position(thing):
    """The name of an object's cell: 'top left'."""
    return POSITIONS[thing["row"]][thing["col"]]


def with_preposition(name):
    """A position in a sentence: 'at the top left', 'in the centre'."""
    return f"in the {name}" if name == "centre" else f"at the {name}"


def relation(thing, other):
    """The position of one object relative to another: 'left', 'above and right', ..."""
    return RELATIONS[1 + _sign(thing["row"] - other["row"])][1 + _sign(thing["col"] - other["col"])]


def related(name):
    """A relation before a noun: 'left of', 'above', 'below and right of'."""
    return name if name in ("above", "below") else f"{name} of"


def _sign(number):
    return (number > 0) - (number < 0)
