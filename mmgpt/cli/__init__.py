"""What every command line shares, without torch: configs, options, checks of files, messages and exit codes."""

from .config import load_config
from .files import check_files

__all__ = ["check_files", "load_config"]
