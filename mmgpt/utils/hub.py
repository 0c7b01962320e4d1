"""Folders of language models and image encoders that are named by their id on the Hugging Face Hub."""

import os
import re
from functools import cache
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants

# The owner, the model, and possibly a branch, tag or commit: 'HuggingFaceTB/SmolLM2-135M-Instruct@main'.
HUB_NAME = re.compile(
    r"(?P<owner>[A-Za-z0-9][\w.-]*)/(?P<model>[A-Za-z0-9][\w.-]*)(@(?P<revision>\w[\w.-]*(/\w[\w.-]*)*))?"
)
# Folders of this project's layout; a missing file in them is not looked for on the Hub.
LOCAL_FOLDERS = ("checkpoints", "configs", "data", "work_dirs")
SMALL_FILES = ("*.json", "*.jinja", "*.model", "*.txt")  # configs, tokenizers and chat templates
SAFETENSORS, BIN = ("*.safetensors",), ("*.bin",)
# Other forms of the same model: those in subfolders of a repository, and the layout of Mistral's own library.
OTHER_FORMS = ("*/*.json", "*/*.model", "*/*.txt", "*/*.safetensors", "*/*.bin", "consolidated*")


def is_hub_name(name: str | os.PathLike) -> bool:
    """Whether a name is the id of a model on the Hub: 'owner/model' or 'owner/model@revision', and no local path.

    A local file or folder of that name comes first, and so does a local folder of the owner's name, in which a model
    is then missing.
    """
    match = HUB_NAME.fullmatch(os.fspath(name))
    return bool(match) and not (match["owner"] in LOCAL_FOLDERS or os.path.isdir(match["owner"]))


def local_folder(name: str | os.PathLike, weights: bool = True) -> str:
    """The folder of a model: a local path unchanged, or the folder of a Hub id in the Hub's cache.

    The files of a Hub id are downloaded where the cache lacks them, by huggingface_hub's own rules (HF_HOME,
    HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN). Its file locks let one of several processes download.

    Args:
        name: folder, or Hub id as `is_hub_name` describes it.
        weights: whether the weights are needed: safetensors, or .bin files where there are none.

    Raises:
        FileNotFoundError: the cache lacks files of the Hub id, and they cannot be downloaded; says how to get them.
    """
    return _cached_folder(name, weights) if is_hub_name(name) else os.fspath(name)


@cache
def _cached_folder(name: str, weights: bool) -> str:
    """The folder of a Hub id, which a process asks the Hub for once."""
    match = HUB_NAME.fullmatch(name)
    model, revision = f"{match['owner']}/{match['model']}", match["revision"]

    def download(patterns: tuple[str, ...]) -> str:
        return huggingface_hub.snapshot_download(
            model, revision=revision, allow_patterns=[*SMALL_FILES, *patterns], ignore_patterns=list(OTHER_FORMS)
        )

    try:
        folder = download(SAFETENSORS if weights else ())
        if weights and not any(Path(folder).glob("*.safetensors")):
            folder = download(BIN)
    except (OSError, ValueError) as error:  # a ValueError where the Hub allows no such name
        if huggingface_hub.is_offline_mode():
            reason = "HF_HUB_OFFLINE is set"
        elif isinstance(error, huggingface_hub.errors.RepositoryNotFoundError):
            reason = "the Hub has no such model, or shows it to its users only (`hf auth login`)"
        else:
            reason = f"the Hub does not give it ({next(iter(str(error).splitlines()), '')})"
        command = f"hf download {model}" + (f" --revision {revision}" if revision else "")
        raise FileNotFoundError(
            f"{name} is neither a local folder nor complete in the Hub's cache ({constants.HF_HUB_CACHE}), "
            f"and {reason}: run `{command}` with a network, or name a folder"
        ) from error
    return folder
