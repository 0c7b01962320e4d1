"""Pictures of answers, of batches and of training curves, a page of batches, and tables for the terminal."""

from mmgpt.visualization.batch_sheet import draw_batches
from mmgpt.visualization.curves import draw_curves
from mmgpt.visualization.page import Batch, write_page
from mmgpt.visualization.sheet import draw_sheet

__all__ = ["Batch", "draw_batches", "draw_curves", "draw_sheet", "write_page"]
