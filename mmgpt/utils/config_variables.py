"""How a config refers to its own top-level values."""

import re

VARIABLE = re.compile(r"\$\{(\w+)\}")
