"""Drawing of scenes as pixels."""

import math
from functools import cache, lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .vocabulary import COLOURS

FONT_SIZES = tuple(range(14, 21))
OVERSAMPLING = 8  # factor by which masks are drawn larger, for smooth edges
TRAIN_SCANS = 1400


def draw_image(facts, rng, canvas):
    """The image of a scene.

    Args:
        facts (dict): see `scenes.draw_scene`.
        rng (np.random.Generator): background, ink, jitter of colours, noise.
        canvas (tuple): width and height in pixels.

    Returns:
        np.ndarray: (height, width, 3) uint8, RGB.
    """
    low, high = (8, 44) if facts["dark"] else (214, 248)
    paper = np.clip(rng.uniform(low, high) + rng.uniform(-6, 6, 3), 0, 255)
    width, height = canvas
    pixels = np.broadcast_to(paper, (height, width, 3)).copy()
    for thing in facts["objects"]:
        _blend(pixels, *_shape_at(thing, canvas), np.array(COLOURS[thing["colour"]]) + rng.uniform(-12, 12, 3))
    ink = rng.uniform(150, 255, 3) if facts["dark"] else rng.uniform(0, 105, 3)
    if facts["word"]:
        _blend(pixels, word_mask(facts["word"], facts["font_size"]), *facts["box"][:2], ink)
    for digit in facts["digits"]:
        x0, y0, x1, _ = digit["box"]
        _blend(pixels, scan_mask(digit["scan"], x1 - x0), x0, y0, ink)
    pixels += rng.integers(-2, 3, (height, width, 1))
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _blend(pixels, mask, x, y, colour):
    rows, cols = slice(y, y + mask.shape[0]), slice(x, x + mask.shape[1])
    pixels[rows, cols] += mask[..., None] * (colour - pixels[rows, cols])


def _shape_at(thing, canvas):
    x0, y0, x1, y1 = thing["box"]
    left, top = math.floor(x0), math.floor(y0)
    mask = _shape_mask(thing["shape"], (x1 - x0) / 2, (x0 + x1) / 2 - left, (y0 + y1) / 2 - top)
    return mask[: canvas[1] - top, : canvas[0] - left], left, top


@cache
def _shape_mask(shape, radius, x, y):
    side = math.ceil(max(x, y) + radius)
    image = Image.new("L", (side * OVERSAMPLING, side * OVERSAMPLING))
    outline = [((x + dx * radius) * OVERSAMPLING, (y + dy * radius) * OVERSAMPLING) for dx, dy in _outline(shape)]
    ImageDraw.Draw(image).polygon(outline, fill=255)
    return np.asarray(image.reduce(OVERSAMPLING), dtype=np.float64) / 255


def _outline(shape):
    """Corners of a shape in a box from -1 to 1, y downwards."""
    if shape == "circle":
        return _ring(48)
    if shape == "square":
        return [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)]
    if shape == "triangle":
        return [(0, -1), (1, 0.85), (-1, 0.85)]
    if shape == "star":
        return [(r * x, r * y) for (x, y), r in zip(_ring(10), (1, 0.42) * 5, strict=True)]
    arm = 0.36
    quarter = [(-arm, -1), (arm, -1), (arm, -arm)]
    return [corner for turn in range(4) for corner in _turned(quarter, turn)]


def _ring(count):
    angles = (2 * math.pi * i / count for i in range(count))
    return [(math.sin(angle), -math.cos(angle)) for angle in angles]


def _turned(corners, quarters):
    for _ in range(quarters):
        corners = [(-y, x) for x, y in corners]
    return corners


@cache
def word_mask(word, size):
    """A word in the font that comes with Pillow, cut to its ink: (height, width) floats from 0 to 1."""
    font = ImageFont.load_default(size)
    x0, y0, x1, y1 = font.getbbox(word)
    image = Image.new("L", (x1 - x0, y1 - y0))
    ImageDraw.Draw(image).text((-x0, -y0), word, fill=255, font=font)
    return np.asarray(image, dtype=np.float64) / 255


@lru_cache(maxsize=4096)
def scan_mask(scan, side):
    """A handwritten digit, scaled: (side, side) floats from 0 to 1."""
    image = Image.fromarray(np.uint8(digit_scans()[0][scan] * (255 / 16)))
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float64) / 255


@lru_cache(maxsize=1)
def digit_scans():
    """scikit-learn's bundled scans of handwritten digits: images (1797, 8, 8) from 0 to 16, labels (1797,)."""
    from sklearn.datasets import load_digits  # takes seconds to import, and only digits need it

    data = load_digits()
    return data.images, data.target


@lru_cache(maxsize=1)
def scan_split():
    """Indices of the scans of each split, equal for every seed, so that held-out scans stay unseen."""
    order = np.random.default_rng(0).permutation(len(digit_scans()[1]))
    return {"train": order[:TRAIN_SCANS], "heldout": order[TRAIN_SCANS:]}
