"""The Hugging Face Hub in tests: a cache in its layout, without a network, or a stand-in server on this machine."""

from pathlib import Path
from shutil import copytree

from huggingface_hub import constants

from mmgpt.utils import hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def use_hub(monkeypatch, cache: Path, endpoint: str | None = None) -> None:
    """Sets the folder of the Hub's cache, and its address; without an address, the Hub is offline."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", endpoint is None)
    if endpoint is not None:
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    hub._cached_folder.cache_clear()


def put_into_cache(cache: Path, name: str, folder: str | Path, revision: str = "main") -> Path:
    """Copies a folder into the Hub's cache as a model of that id, and returns its folder there."""
    model = cache / f"models--{name.replace('/', '--')}"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / revision).write_text(COMMIT)
    return Path(copytree(folder, model / "snapshots" / COMMIT))
