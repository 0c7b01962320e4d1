"""Dataset of images with a label for each patch, on which `PatchClassifier` is trained."""

from pathlib import Path

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from PIL import Image

from mmgpt.datasets.parsers.fields import field
from mmgpt.datasets.transforms.images import upright_rgb
from mmgpt.models.loss import IGNORE_INDEX
from mmgpt.registry import DATASETS
from mmgpt.utils.json_file import read_json_object


@DATASETS.register_module()
class PatchLabelDataset(BaseDataset):
    """Dataset of images with boxes: pixels and, for each patch, the class of the box around its centre.

    The annotation file is a dict: image path -> {'split': str, 'boxes': [{'box': [x0, y0, x1, y1] in pixels, and labels
    by name}]}; a 'scenes.json' of generate.py is read too. Class 0 is the background. The label of a patch that a box
    touches without holding its centre is -100, which the loss ignores.

    Args:
        classes: names of the classes by kind of label, without the background.
        split: split whose entries are read.
        image_size, patch_size: in pixels; the labels have (image_size / patch_size) ** 2 patches in reading order.
        image_mean, image_std: normalisation of pixels in 0..1.
        grey: probability that an image loses its colours and its 'colour' labels, so that the encoder does not infer
            shapes from colours. NumPy's global generator draws, since MMEngine's samplers do not tell a dataset its
            epoch. ResumableEpochLoop seeds that generator, so that a run resumed at an epoch draws the same with
            num_workers=0; with worker processes, the draws depend on their number.

    Raises:
        ValueError: no entry of that split; an entry without its keys or with an unknown label (names file and entry).
    """

    def __init__(
        self,
        classes: dict[str, list],
        split: str,
        image_size: int = 64,
        patch_size: int = 8,
        image_mean: tuple = (0.5, 0.5, 0.5),
        image_std: tuple = (0.5, 0.5, 0.5),
        grey: float = 0.0,
        **kwargs,  # BaseDataset's own
    ):
        self.classes = {name: {value: 1 + i for i, value in enumerate(values)} for name, values in classes.items()}
        self.split = split
        self.centres = np.arange(image_size // patch_size) * patch_size + patch_size / 2
        self.half, self.grey = patch_size / 2, grey
        self.mean, self.std = (np.asarray(x, np.float32) for x in (image_mean, image_std))
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """Path and boxes of each image of the split."""
        scenes = read_json_object(self.ann_file)
        folder = Path(self.data_prefix.get("img", ""))
        entries = []
        for name, scene in scenes.items():
            try:
                if field(scene, "split") == self.split:
                    entries.append({"image": str(folder / name), "boxes": self._boxes(scene)})
            except (ValueError, LookupError, TypeError) as error:
                reason = error if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
                raise ValueError(f"{self.ann_file}, image {name!r}: {reason}") from error
        if not entries:
            raise ValueError(f"{self.ann_file}: no images of split {self.split!r}")
        return entries

    def _boxes(self, scene: dict) -> list[dict]:
        boxes = labelled_boxes(scene)
        for name, numbers in self.classes.items():
            unknown = [box[name] for box in boxes if name in box and box[name] not in numbers]
            if unknown:
                raise ValueError(f"{name} {unknown[0]!r} is none of the classes {', '.join(map(str, numbers))}")
        return boxes

    def prepare_data(self, idx: int) -> dict:
        """{'pixels': (3, H, W) float32, 'labels': {name: (P,) int64}}."""
        entry = self.get_data_info(idx)
        with Image.open(entry["image"]) as image:
            pixels = (np.asarray(upright_rgb(image), np.float32) / 255 - self.mean) / self.std
        labels = self.labels(entry["boxes"])
        if np.random.random() < self.grey:
            pixels = np.repeat(pixels.mean(axis=2, keepdims=True), 3, axis=2)
            labels["colour"] = torch.full_like(labels["colour"], IGNORE_INDEX)
        return {"pixels": torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), "labels": labels}

    def labels(self, boxes: list[dict]) -> dict[str, torch.Tensor]:
        """The class of each patch, (P,) by kind of label."""
        size = len(self.centres)
        grids = {name: np.zeros((size, size), np.int64) for name in self.classes}
        for box in boxes:
            x0, y0, x1, y1 = box["box"]
            for grid in grids.values():
                grid[np.ix_(self._within(y0, y1, self.half), self._within(x0, x1, self.half))] = IGNORE_INDEX
        for box in boxes:
            x0, y0, x1, y1 = box["box"]
            patches = np.ix_(self._within(y0, y1), self._within(x0, x1))
            for name, grid in grids.items():
                grid[patches] = self.classes[name][box[name]] if name in box else 0
        return {name: torch.from_numpy(grid.reshape(-1)) for name, grid in grids.items()}

    def _within(self, low: float, high: float, margin: float = 0.0) -> np.ndarray:
        return np.flatnonzero((self.centres > low - margin) & (self.centres < high + margin))


def labelled_boxes(scene: dict) -> list[dict]:
    """The boxes of a scene, each with its labels; in a scene of generate.py: the objects, digits and the word."""
    if "boxes" in scene:
        return scene["boxes"]
    boxes = [{**o, "cell": 3 * o["row"] + o["col"]} for o in scene["objects"]] + list(scene["digits"])
    if scene.get("word"):
        boxes.append({"box": scene["box"], "word": scene["word"]})
    return boxes
