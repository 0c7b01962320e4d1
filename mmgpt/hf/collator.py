"""Collator for transformers' Trainer and TRL's SFTTrainer: conversations -> batches with the labels of our training."""

from collections.abc import Mapping, Sequence

from PIL import Image
from torch import Tensor

from mmgpt.datasets import collate_conversations
from mmgpt.datasets.dropped import DroppedSamples
from mmgpt.datasets.parsers import messages
from mmgpt.datasets.records import parse_record, record_id
from mmgpt.datasets.transforms import FormatPrompt, LoadImages, PackInputs, TokenizeSegments
from mmgpt.utils.errors import SampleError, SampleLocation, located

from .processing import CHAT, MMGPTProcessor


class MMGPTCollator:
    """Turns conversations into batches with labels on their answers, by the prompt template of a processor.

    An example is a record of mmgpt's parser `messages`: OpenAI's and TRL's conversations, whose images may also be PIL
    images. The trainer has to leave its columns alone: `remove_unused_columns=False`.

    Args:
        processor: of an exported folder.
        max_length: tokens beyond this number are cut off at the right, with their images; None: none.

    Raises:
        ValueError: the processor does not say its prompt template.
    """

    def __init__(self, processor: MMGPTProcessor, max_length: int | None = None):
        tokenizer, is_chat = processor.tokenizer, processor.tokenization == CHAT
        template = CHAT if is_chat else processor.prompt_template
        if template is None:
            raise ValueError("the processor has no prompt_template: export its folder again")
        tokenization = "segments" if is_chat else processor.tokenization
        self.image_processor, self.pad_token_id = processor.image_processor, tokenizer.pad_token_id
        self.load = LoadImages()
        self.format = FormatPrompt(template, tokenizer=tokenizer, system=processor.system_prompt)
        self.tokenize = TokenizeSegments(tokenizer, max_length, tokenization, processor.add_bos_token)

    def __call__(self, examples: Sequence[Mapping]) -> dict[str, Tensor]:
        """A batch, padded on the right.

        Returns:
            `input_ids`, `attention_mask` and `labels` (-100 for tokens without a label), int64 (B, L), and where there
            are images those of all rows in their order, as the image processor prepares them: `pixel_values`, float32
            (n, 3, H, W), or frames with their `tile_ids`.

        Raises:
            SampleError: an example is no conversation, has an image that cannot be opened, or no label token within
                the length limit; names its place in the batch, and its `id`.
        """
        samples, images = [], []
        for number, example in enumerate(examples):
            with located(SampleLocation(record=number, id=record_id(example))):
                sample, images_of_sample = self._sample(number, example)
            samples.append(sample)
            images += images_of_sample
        batch = collate_conversations(samples, self.pad_token_id)
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
        return {**inputs, **self.image_processor(images)} if images else inputs

    def _sample(self, number: int, example: Mapping) -> tuple[dict, list[Image.Image]]:
        """The sample of an example, as `collate_conversations` takes it, without its images; and these."""
        if not example:
            raise SampleError("no columns are left: give the trainer's arguments remove_unused_columns=False")
        # 1. The parser reads paths; an image in memory gets a name in their place.
        images = {}

        def named(value):
            if isinstance(value, Mapping):
                return {key: named(entry) for key, entry in value.items()}
            if isinstance(value, (list, tuple)):
                return [named(entry) for entry in value]
            if isinstance(value, Image.Image):
                name = f"\0{len(images)}"
                images[name] = value
                return name
            return value

        sample = parse_record(messages, number, named(example))
        # 2. Prompt, token ids and labels.
        results = self.format({**sample, "source": "visual"})
        if self.tokenize(results) is None:
            raise SampleError(DroppedSamples.reason(results))
        # 3. Images.
        # Those whose token is cut off are left out.
        names = sample["images"][: results["image_tokens"]]
        pil = [images.get(name) or self.load({"images": [name]})["pil"][0] for name in names]
        try:
            for image in pil:
                image.load()
        except OSError as error:
            raise SampleError(f"an image cannot be read: {error}") from error
        return {**PackInputs()({**results, "pixels": pil}), "pixels": None}, pil
