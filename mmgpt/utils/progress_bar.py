"""Progress bars on the terminal and in logs."""

from mmengine.dist import is_main_process
from tqdm import tqdm


def progress_bar(name: str, total: int | None, done: int = 0) -> tqdm:
    """Progress bar on stderr; where stderr is not a terminal, it is written every ten seconds."""
    bar = tqdm(total=total, initial=done, desc=name, dynamic_ncols=True, disable=not is_main_process())
    if not bar.disable and not bar.fp.isatty():
        bar.mininterval = 10
    return bar
