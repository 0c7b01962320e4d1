"""Hook that shows a progress bar for each training, validation and test run."""

from mmengine.hooks import Hook
from mmengine.runner import Runner
from tqdm import tqdm

from mmgpt.registry import HOOKS
from mmgpt.utils.progress_bar import progress_bar


@HOOKS.register_module()
class ProgressBarHook(Hook):
    """Shows the progress of a run: batches done of all batches (training: of all epochs), time left, the last loss."""

    priority = "LOW"

    def __init__(self) -> None:
        self.bars: dict[str, tqdm] = {}

    def before_train(self, runner: Runner) -> None:
        """Open the bar of the training run, at the batch where a resumed run starts."""
        self.bars["train"] = progress_bar("train", runner.max_iters, runner.iter)

    def after_train(self, runner: Runner) -> None:
        """Close the bar of the training run."""
        self.bars.pop("train").close()

    def after_run(self, runner: Runner) -> None:
        """Close the bars that a run left open when it was stopped."""
        for bar in self.bars.values():
            bar.close()

    def _before_epoch(self, runner: Runner, mode: str = "train") -> None:
        if mode != "train":
            loader = runner.val_dataloader if mode == "val" else runner.test_dataloader
            self.bars[mode] = progress_bar(mode, len(loader))

    def _after_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None, mode: str = "train"
    ) -> None:
        bar = self.bars[mode]
        # The loss is logged from the end of the first optimizer step on.
        if mode == "train" and not bar.disable and "train/loss" in runner.message_hub.log_scalars:
            loss = runner.message_hub.get_scalar("train/loss").current()
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        bar.update()

    def _after_epoch(self, runner: Runner, mode: str = "train") -> None:
        if mode != "train":
            self.bars.pop(mode).close()
