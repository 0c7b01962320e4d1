"""Earlier path of projects/tiny_world/generate.py, which it runs after a warning, for one release."""

import subprocess
import sys
from pathlib import Path

COMMAND = Path(__file__).parents[2] / "projects" / "tiny_world" / "generate.py"
print(f"warning: {Path(__file__).name} is projects/tiny_world/{COMMAND.name} now", file=sys.stderr)
sys.exit(subprocess.call([sys.executable, COMMAND, *sys.argv[1:]]))
