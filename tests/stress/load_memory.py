"""How much memory building a config's model takes at its peak, beside the bytes of its weights (Linux).

    python tests/stress/load_memory.py configs/mmgpt/lora_joint.py

Counted is anonymous memory: pages of a memory-mapped file can be given back at any time.
"""

import argparse
import threading
import time
from pathlib import Path

from mmengine.registry import init_default_scope

from mmgpt.apis import build_model
from mmgpt.cli import load_config, tool
from mmgpt.cli.options import add_cfg_options

GB = 1e9


def anonymous_bytes() -> int:
    """Bytes of this process that no file backs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


class Peak(threading.Thread):
    """Looks every 20 ms at `anonymous_bytes` until it is stopped, and keeps the largest."""

    def __init__(self):
        super().__init__(daemon=True)
        self.start_bytes = self.bytes = anonymous_bytes()
        self.ended = threading.Event()

    def run(self) -> None:
        """Look until `stop`."""
        while not self.ended.is_set():
            self.bytes = max(self.bytes, anonymous_bytes())
            time.sleep(0.02)

    def stop(self) -> int:
        """The largest number of bytes above the start."""
        self.ended.set()
        self.join()
        return self.bytes - self.start_bytes


def main() -> None:
    """Build, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("checkpoint", nargs="?")
    add_cfg_options(parser)
    args = parser.parse_args()
    cfg = load_config(args.config, args.cfg_options)
    init_default_scope("mmgpt")
    import mmgpt.models  # noqa: F401  (its libraries are not part of the weights)

    peak = Peak()
    peak.start()
    model = build_model(cfg, args.checkpoint, device="cpu")
    most = peak.stop()
    own = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    print(f"weights {own / GB:.2f} GB, peak while loading {most / GB:.2f} GB, ratio {most / own:.3f}")


if __name__ == "__main__":
    tool.run(main)
