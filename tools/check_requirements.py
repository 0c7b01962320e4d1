"""Check whether this Python satisfies requirement files: ``python tools/check_requirements.py FILE...``.

Unmet requirements are printed, and the exit code is 1 then. The packages of onedl.txt, if it is beside a file, are
accepted instead of mmengine.
"""

import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PYTHONS = ((3, 11), (3, 12), (3, 13))
# Requirement files of packages that replace another one: they have its import name and cannot be installed beside it.
REPLACEMENTS = {"mmengine": "onedl.txt"}


def entries(path: Path) -> Iterator[str]:
    """Yield the requirements of a file and of the files that it includes with -r."""
    for line in path.read_text().splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("-r "):
            yield from entries(path.parent / line[3:].strip())
        elif line:
            yield line


def unmet(text: str, folder: Path) -> str | None:
    """Message about a requirement of a file in `folder` that this Python does not satisfy, or None."""
    from packaging.requirements import Requirement

    requirement = Requirement(text)
    replacement = folder / REPLACEMENTS.get(requirement.name, "")
    if replacement.is_file() and not any(unmet(entry, folder) for entry in entries(replacement)):
        return None
    if requirement.marker is not None and not requirement.marker.evaluate():
        return None
    try:
        installed = version(requirement.name)
    except PackageNotFoundError:
        return f"{text} is not installed"
    satisfied = requirement.specifier.contains(installed, prereleases=True)
    return None if satisfied else f"{text}, but {installed} is installed"


def main() -> int:
    """Check the files named on the command line."""
    if sys.version_info[:2] not in PYTHONS:
        print(f"Python 3.11, 3.12 or 3.13 is needed, this is {sys.version.split()[0]}")
        return 1
    try:
        requirements = [(text, file.parent) for file in map(Path, sys.argv[1:]) for text in entries(file)]
        problems = [problem for text, folder in requirements if (problem := unmet(text, folder))]
    except ModuleNotFoundError as error:
        problems = [f"{error.name} is not installed"]
    print("\n".join(problems), end="\n" * bool(problems))
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
