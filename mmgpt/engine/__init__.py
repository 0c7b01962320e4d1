"""What MMEngine needs around it: reading configs, resumable training, small and safe checkpoints, launching.

What a config can name is imported by `registered`, and torch with it: a tool's --help and its complaint about a wrong
path come without.
"""

from .config import load_config
from .files import check_files

__all__ = ["check_files", "load_config"]
