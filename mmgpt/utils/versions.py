"""Versions of Python and of the packages that weights, answers and scores depend on."""

import platform
from importlib.metadata import PackageNotFoundError, version

# Either of these provides the module `mmengine`.
ENGINES = ("mmengine", "onedl-mmengine")
PACKAGES = ("mmgpt", "torch", *ENGINES, "transformers", "peft", "open_clip_torch", "pillow", "pycocoevalcap")


def versions() -> dict[str, str]:
    """The versions of Python and of those of PACKAGES that are installed."""
    result = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            result[name] = version(name)
        except PackageNotFoundError:
            continue
    return result
