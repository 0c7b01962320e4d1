"""Peak memory of building a config's model, compared with the bytes of its weights (Linux).

    python tests/stress/load_memory.py configs/mmgpt/lora_joint.py

Only anonymous memory is counted, since the system can drop pages of a memory-mapped file at any time.
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
    """Anonymous memory of this process in bytes: pages that no file backs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


class Peak(threading.Thread):
    """Thread that samples `anonymous_bytes` every 20 ms until it is stopped, and keeps the maximum."""

    def __init__(self):
        super().__init__(daemon=True)
        self.start_bytes = self.bytes = anonymous_bytes()
        self.ended = threading.Event()

    def run(self) -> None:
        """Sample until `stop` is called."""
        while not self.ended.is_set():
            self.bytes = max(self.bytes, anonymous_bytes())
            time.sleep(0.02)

    def stop(self) -> int:
        """End the thread and return the maximum above the start, in bytes."""
        self.ended.set()
        self.join()
        return self.bytes - self.start_bytes


def main() -> None:
    """Build the model and print its size and the peak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("checkpoint", nargs="?")
    add_cfg_options(parser)
    args = parser.parse_args()
    cfg = load_config(args.config, args.cfg_options)
    init_default_scope("mmgpt")
    import mmgpt.models.registered  # noqa: F401  The memory of its libraries does not count.

    peak = Peak()
    peak.start()
    model = build_model(cfg, args.checkpoint, device="cpu")
    peak_bytes = peak.stop()
    weight_bytes = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    print(
        f"weights {weight_bytes / GB:.2f} GB, peak while loading {peak_bytes / GB:.2f} GB, ratio "
        f"{peak_bytes / weight_bytes:.3f}"
    )


if __name__ == "__main__":
    tool.run(main)
