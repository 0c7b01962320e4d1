"""Trackers by name: backends of MMEngine's visualizer, and the packages that they need."""

from collections.abc import Sequence
from importlib import import_module

LOCAL = {"type": "LocalVisBackend"}  # writes the file that tools/analysis_tools/analyze_logs.py reads
PROJECT = {"project": "mmgpt"}
TRACKERS = {
    "files": [LOCAL],
    "tensorboard": [LOCAL, {"type": "TensorboardVisBackend"}],
    "wandb": [LOCAL, {"type": "WandbVisBackend", "init_kwargs": PROJECT}],
    # Nothing is sent; `wandb sync` does that later.
    "wandb_offline": [LOCAL, {"type": "WandbVisBackend", "init_kwargs": {**PROJECT, "mode": "offline"}}],
    # The config is an artifact: as parameters, MMEngine's backend takes no lists in lists.
    "mlflow": [
        LOCAL,
        {"type": "MLflowVisBackend", "exp_name": "mmgpt", "tracked_config_keys": [], "artifact_suffix": ".py"},
    ],
    # The default suffixes would upload all checkpoints.
    "clearml": [
        LOCAL,
        {"type": "ClearMLVisBackend", "init_kwargs": {"project_name": "mmgpt"}, "artifact_suffix": ".py"},
    ],
    "aim": [LOCAL, {"type": "AimVisBackend"}],
    "trackio": [LOCAL, {"type": "TrackerVisBackend", "package": "trackio", "init_kwargs": PROJECT}],
    "swanlab": [LOCAL, {"type": "TrackerVisBackend", "package": "swanlab", "init_kwargs": PROJECT}],
}
# The packages of MMEngine's backends; each is in a requirements file of its name.
PACKAGES = {
    "TensorboardVisBackend": "tensorboard",
    "WandbVisBackend": "wandb",
    "MLflowVisBackend": "mlflow",
    "ClearMLVisBackend": "clearml",
    "AimVisBackend": "aim",
}


def check_trackers(backends: Sequence[dict]) -> None:
    """Raises a ValueError where the package of one of these `vis_backends` cannot be imported."""
    for backend in backends:
        package = backend.get("package") or PACKAGES.get(backend.get("type"))
        try:
            if package:
                import_module(package)
        except ImportError as error:
            text = f"the tracker needs the package {package}: pip install -r requirements/{package}.txt"
            raise ValueError(f"{text} ({error})") from error
