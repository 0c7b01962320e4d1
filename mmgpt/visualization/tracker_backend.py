"""Visualizer backends of trackers that MMEngine lacks (trackio, SwanLab), or whose release it does not fit (MLflow)."""

import json
import os
from importlib import import_module
from numbers import Number

import numpy as np
from mmengine.config import Config
from mmengine.visualization import BaseVisBackend, vis_backend
from mmengine.visualization.vis_backend import force_init_env

from mmgpt.registry import VISBACKENDS


@VISBACKENDS.register_module()
class TrackerVisBackend(BaseVisBackend):
    """Curves, images and config of a run in trackio or SwanLab.

    Args:
        save_dir: MMEngine's folder of a run's curves.
        package: 'trackio' or 'swanlab', which have wandb's `init`, `log`, `finish` and `Image`.
        init_kwargs: arguments of `init`.
    """

    def __init__(self, save_dir: str, package: str, init_kwargs: dict | None = None):
        super().__init__(save_dir)
        self.package, self.init_kwargs, self.config = package, init_kwargs or {}, None

    def _init_env(self) -> None:
        self.tracker = import_module(self.package)
        self.tracker.init(**self.init_kwargs, config=self.config)

    @property
    @force_init_env
    def experiment(self):
        """The package, after its `init`."""
        return self.tracker

    def add_config(self, config: Config, **kwargs) -> None:
        """Keeps the config of a run for `init`, values that JSON does not have as text."""
        self.config = json.loads(json.dumps(config.to_dict(), default=str))

    @force_init_env
    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs) -> None:
        """Logs an image, uint8 (H, W, 3)."""
        self.tracker.log({name: self.tracker.Image(image)}, step=step)

    @force_init_env
    def add_scalar(self, name: str, value: Number, step: int = 0, **kwargs) -> None:
        """Logs a number."""
        self.tracker.log({name: float(value)}, step=step)

    @force_init_env
    def add_scalars(self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs) -> None:
        """Logs several numbers; `file_path` is for other backends."""
        self.tracker.log({name: float(value) for name, value in scalar_dict.items()}, step=step)

    def close(self) -> None:
        """Ends the run in the tracker."""
        if self._env_initialized:
            self.tracker.finish()


@VISBACKENDS.register_module()
class MLflowVisBackend(vis_backend.MLflowVisBackend):
    """MMEngine's backend with a store and names of images that MLflow 3 takes: no folder, and names with an extension.

    Args:
        save_dir: MMEngine's folder of a run's curves.
        tracking_uri: MLflow's store; None: that of MLFLOW_TRACKING_URI, or mlflow.db in the current folder.
        arguments: MMEngine's.
    """

    def __init__(self, save_dir: str, tracking_uri: str | None = None, **arguments):  # of MMEngine's class
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
        super().__init__(save_dir, tracking_uri=uri, **arguments)

    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs) -> None:
        """Logs an image, uint8 (H, W, 3), as a file named after its step."""
        super().add_image(f"{name}_{step}.png", image, step)
