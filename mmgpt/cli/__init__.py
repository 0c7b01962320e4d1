"""Code that all command line tools share, importable without torch: configs, options, file checks, error messages."""

from .config import load_config
from .files import check_files

__all__ = ["check_files", "load_config"]
