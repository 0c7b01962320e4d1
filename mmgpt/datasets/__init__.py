"""Data: annotation files to conversations, to prompts, to batches."""

from .collate import collate_conversations
from .controls import ImageControl
from .instruction import InstructionDataset
from .joint import JointDataset
from .samplers import JointBatchSampler
from .stream_sampler import StreamBatchSampler

__all__ = [
    "ImageControl",
    "InstructionDataset",
    "JointBatchSampler",
    "JointDataset",
    "StreamBatchSampler",
    "collate_conversations",
]
