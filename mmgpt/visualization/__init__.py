"""Sheets and pages of answers, pages of batches, training curves, and tables for the terminal."""

from mmgpt.visualization.answer_sheet import draw_sheet
from mmgpt.visualization.batch_page import Batch, write_page
from mmgpt.visualization.curves import draw_curves

__all__ = ["Batch", "draw_curves", "draw_sheet", "write_page"]
