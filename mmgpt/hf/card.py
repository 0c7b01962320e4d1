"""Model cards of folders for transformers, and their upload to the Hugging Face Hub."""

import json
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import EvalResult, HfApi, ModelCard, ModelCardData
from mmengine.config import Config
from transformers import PreTrainedTokenizerBase

from mmgpt.cli.config import flamingo_config, plain_config
from mmgpt.datasets.chat_template import ChatTemplate
from mmgpt.datasets.prompts import find_template
from mmgpt.utils.json_file import read_json_object

from .modeling import MMGPTConfig
from .source import FILE

README, ADAPTER = "README.md", "adapter_config.json"
TASK = "image-text-to-text"
NAME = "owner/name"  # stands in a card until `write_card` knows the name
TEXT = """\
# {name}

A Flamingo-style vision-language model (image encoder, Perceiver resampler, gated cross-attention blocks in a causal
language model), tuned with mmgpt.

## Use

Without mmgpt, by the code in `{file}`:

```python
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained("{name}", trust_remote_code=True)
processor = AutoProcessor.from_pretrained("{name}", trust_remote_code=True)
content = [{{"type": "image", "path": "photo.jpg"}}, {{"type": "text", "text": "What is in the picture?"}}]
messages = [{{"role": "user", "content": content}}]
inputs = processor.apply_chat_template(messages, tokenize=True, return_dict=True, return_tensors="pt")
answer = model.generate(**inputs)[0, inputs["input_ids"].shape[1] :]
print(processor.decode(answer, skip_special_tokens=True))
```

The same by a pipeline:

```python
from transformers import pipeline

ask = pipeline("image-text-to-text", model="{name}", trust_remote_code=True)
content = [{{"type": "image", "path": "photo.jpg"}}, {{"type": "text", "text": "What is in the picture?"}}]
print(ask(text=[{{"role": "user", "content": content}}], return_full_text=False)[0]["generated_text"])
```

With mmgpt installed, and no code of this folder:

```python
import mmgpt.hf
from transformers import pipeline

ask = pipeline("image-text-to-text", model="{name}")
```

## Base

| component | model | licence |
|---|---|---|
{bases}

The tuned weights are derived from these models, whose terms hold for them too.

## Data

{data}

## Prompt template

`chat_template.jinja`{prompt}

## Config

```json
{config}
```
"""
# For a folder whose adapter is apart.
APART = """\
This folder is the model without its LoRA updates, which are in `adapter/`. peft loads them, and others of this base:

```python
from peft import PeftModel
from transformers import AutoModelForImageTextToText

model = AutoModelForImageTextToText.from_pretrained("{name}", trust_remote_code=True)
model = PeftModel.from_pretrained(model, "{name}", subfolder="adapter", adapter_name="tuned")
```

"""


def model_card(cfg: Config, tokenizer: PreTrainedTokenizerBase, apart: bool = False) -> ModelCard:
    """The card of an experiment's model, which has this tokenizer: use, bases, data, prompt template and config.

    `apart` says that the folder's adapter is apart from its base.
    Licences are those in the metadata of README.md in the folders of the bases; the folders' sources are the config's.
    """
    module, sources = flamingo_config(cfg), cfg.get("sources", {})
    bases, licenses, config = [], set(), json.dumps(plain_config(cfg.model), indent=2, ensure_ascii=False)
    for component, path in {
        "language model": module["language"]["path"],
        "image encoder": module["vision"].get("path") or module["vision"].get("model"),
        "resampler and gated blocks": module.get("weights"),
    }.items():
        if path is not None:
            # The folders of this machine are named by their last part.
            config = config.replace(
                json.dumps(path, ensure_ascii=False), json.dumps(Path(path).name, ensure_ascii=False)
            )
            # The licence in the metadata of README.md in the base's folder, if there is one.
            readme = (Path(path) if Path(path).is_dir() else Path(path).parent) / README
            license_ = ModelCard.load(readme).data.license if readme.is_file() else None
            licenses.add(license_)
            bases.append(f"| {component} | {sources.get(path, Path(path).name)} | {license_ or 'not in its folder'} |")
    dataset = cfg.get("train_dataloader", {}).get("dataset", {})
    names = [part["name"] for key in ("visual", "language") for part in dataset.get(key) or () if "name" in part]
    [template] = [step["template"] for step in cfg.chat_pipeline if step["type"] == "FormatPrompt"]
    template, prompt = find_template(template, tokenizer), ", the language model's own."
    if not isinstance(template, ChatTemplate):
        prompt = f". As plain data: `{json.dumps(template, ensure_ascii=False)}`"
    text = TEXT.format(
        name=NAME,
        file=FILE,
        bases="\n".join(bases),
        data=", ".join(dict.fromkeys(names)) or "The config names no datasets.",
        prompt=prompt,
        config=config,
    )
    if apart:
        text = text.replace("## Use\n\n", "## Use\n\n" + APART.format(name=NAME))
    [license_] = licenses if len(licenses) == 1 else [None]
    tags = ["mmgpt", "flamingo", "custom_code"]
    data = ModelCardData(library_name="transformers", pipeline_tag=TASK, license=license_ or "other", tags=tags)
    return ModelCard(f"---\n{data}\n---\n\n{text}")


def write_card(folder: str | Path, name: str, results: Sequence[str | Path] = ()) -> ModelCard:
    """Writes the card of an exported folder under a name, with the scores of evaluations in its metadata.

    Args:
        folder: that `export_transformers` wrote.
        name: 'owner/name' on the Hub.
        results: files result.json of evaluations.

    Raises:
        ValueError: the folder is not such a folder, or the name has no owner.
        FileNotFoundError: there is no such result.json.
    """
    file = Path(folder) / "config.json"
    if not file.is_file() or read_json_object(file).get("model_type") != MMGPTConfig.model_type:
        raise ValueError(f"{folder} is not a folder that export --format transformers wrote")
    if name.count("/") != 1 or not all(name.split("/")):
        raise ValueError(f"{name!r}: give the name on the Hub as owner/name")
    card = ModelCard.load(Path(folder) / README)
    card.text = card.text.replace(NAME, name)
    scores = []
    for path in results:
        for key, value in read_json_object(path)["metrics"].items():
            metric, _, dataset = key.partition("/")
            # Names of three parts are numbers of questions.
            if "/" not in dataset and isinstance(value, (int, float)):
                of = dataset or "all"
                scores.append(EvalResult(TASK, of, of, metric, value))
    if scores:
        card.data.model_name, card.data.eval_results = name, scores
    card.save(Path(folder) / README)
    return card


def push(folder: str | Path, name: str, results: Sequence[str | Path] = (), private: bool = False) -> str:
    """Uploads an exported folder with its card, and returns the address of the commit.

    Args:
        folder, name, results: as for `write_card`.
        private: whether a new repository is private.
    """
    write_card(folder, name, results)
    for adapter in (Path(folder) / ADAPTER, Path(folder) / "adapter" / ADAPTER):
        if adapter.is_file():
            # transformers and peft look there for the base, unless the folder is a local one.
            settings = {**read_json_object(adapter), "base_model_name_or_path": name}
            adapter.write_text(json.dumps(settings, indent=2) + "\n")
    api = HfApi()
    api.create_repo(name, private=private, exist_ok=True)
    return str(api.upload_folder(repo_id=name, folder_path=folder, commit_message="Model exported by mmgpt"))
