"""Pictures of answers and of training curves, and tables for the terminal."""

from mmgpt.visualization.curves import draw_curves
from mmgpt.visualization.sheet import draw_sheet

__all__ = ["draw_curves", "draw_sheet"]
