"""Syntax by which a config refers to its own top-level values: ``${name}``."""

import re

VARIABLE = re.compile(r"\$\{(\w+)\}")
