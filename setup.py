"""Installs the package mmgpt: ``pip install -e .``."""

import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def requirements(name: str) -> list[str]:
    """The lines of requirements/<name>.txt without comments."""
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    return [line for line in map(str.strip, lines) if line and not line.startswith("#")]


def runtime() -> list[str]:
    """What mmgpt needs: of mmengine and its fork, which overwrite each other's files, the one that is there already."""
    try:
        version("onedl-mmengine")
    except PackageNotFoundError:
        return requirements("runtime")
    return [line for line in requirements("runtime") if not line.startswith("mmengine")] + requirements("onedl")


setup(
    name="mmgpt",
    version=re.search(r'__version__ = "(.+)"', (ROOT / "mmgpt" / "__init__.py").read_text())[1],
    description="Flamingo-style vision-language models on MMEngine, tuned with LoRA",
    license="Apache-2.0",
    packages=find_packages(include=["mmgpt", "mmgpt.*"]),
    package_data={"mmgpt.visualization": ["*.html"], "mmgpt.webpage": ["assets/*"]},
    python_requires=">=3.11,<3.14",
    install_requires=runtime(),
    extras_require={
        name: requirements(name) for name in ("optional", "captions", "parquet", "quantization", "demo", "serve")
    },
    # Where lmms-eval looks for models of other packages.
    entry_points={"lmms_eval.models": ["mmgpt = mmgpt.harness.lmms_eval_plugin:manifest"]},
)
