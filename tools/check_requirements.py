"""Says whether this Python satisfies requirement files: ``python tools/check_requirements.py FILE...``.

Prints what is missing, and ends with exit code 1 then. An engine from onedl.txt beside a file will do for mmengine.
"""

import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PYTHONS = ((3, 11), (3, 12), (3, 13))
# Files with what stands in for a package: has the same import name, and cannot be installed beside it.
STAND_INS = {"mmengine": "onedl.txt"}


def entries(path: Path) -> Iterator[str]:
    """Yield the requirements in a file and in those that it includes with -r."""
    for line in path.read_text().splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("-r "):
            yield from entries(path.parent / line[3:].strip())
        elif line:
            yield line


def unmet(text: str, folder: Path) -> str | None:
    """What is wrong with one requirement of a file in `folder` here, or None."""
    from packaging.requirements import Requirement

    requirement = Requirement(text)
    stand_in = folder / STAND_INS.get(requirement.name, "")
    if stand_in.is_file() and not any(unmet(each, folder) for each in entries(stand_in)):
        return None
    if requirement.marker is not None and not requirement.marker.evaluate():
        return None
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return f"{text} is not installed"
    return None if requirement.specifier.contains(found, prereleases=True) else f"{text}, but {found} is installed"


def main() -> int:
    """Check the files given on the command line."""
    if sys.version_info[:2] not in PYTHONS:
        print(f"Python 3.11, 3.12 or 3.13 is needed, this is {sys.version.split()[0]}")
        return 1
    try:
        wanted = [(text, file.parent) for file in map(Path, sys.argv[1:]) for text in entries(file)]
        problems = [problem for text, folder in wanted if (problem := unmet(text, folder))]
    except ModuleNotFoundError as error:
        problems = [f"{error.name} is not installed"]
    print("\n".join(problems), end="\n" * bool(problems))
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
