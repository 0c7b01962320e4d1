"""The versions of what computes: Python and the packages that make weights, answers and scores."""

import platform
from importlib.metadata import PackageNotFoundError, version

# One of mmengine and onedl-mmengine gives the engine.
ENGINES = ("mmengine", "onedl-mmengine")
PACKAGES = ("mmgpt", "torch", *ENGINES, "transformers", "peft", "open_clip_torch", "pillow", "pycocoevalcap")


def versions() -> dict[str, str]:
    """The version of Python and of each of PACKAGES that is installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
