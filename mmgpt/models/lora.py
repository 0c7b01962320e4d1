"""LoRA around a registered model, built on peft (Hu et al. 2021, arXiv:2106.09685)."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import MISSING, Field, fields

from mmengine.model import BaseModel
from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer, check_target_module_exists
from peft.utils.other import get_pattern_key
from torch import nn
from transformers.pytorch_utils import Conv1D

from mmgpt.registry import MODELS

from .flamingo import PARTS
from .language import is_tied

# The values of two fields that work here, and why no other does. peft's other beginnings draw the updates by chance
# (False), change the base's weights, which no checkpoint holds (pissa, olora, loftq, corda), or are plain LoRA unless
# something else is called before (eva, lora_ga). bias="all" trains biases far from any update.
CHOICES = {
    "init_lora_weights": (
        (True, "gaussian", "orthogonal", "mica"),
        "a model before training has to be its base, whose weights stay as its files have them",
    ),
    "bias": (("none", "lora_only"), "only layers with an update may train their bias"),
}
_OTHER_BEGINNING = "the init_lora_weights that it belongs to is not supported"
# Fields of peft's LoraConfig that do not work here, and why.
REFUSED = {
    "task_type": "leave it out, a Flamingo is not one of transformers' tasks",
    "inference_mode": "nothing would be trained",
    "modules_to_save": "choose layers by target_modules and tokens by train_tokens",
    "trainable_token_indices": "name the tokens in train_tokens",
    "ensure_weight_tying": "LoRA on a table that is both embedding and output head is refused",
    "layer_replication": "the gated blocks stand between the layers that the base has",
    "loftq_config": _OTHER_BEGINNING,
    "eva_config": _OTHER_BEGINNING,
    "corda_config": _OTHER_BEGINNING,
    "lora_ga_config": _OTHER_BEGINNING,
    "kasa_config": "it changes the weights of the base, which no checkpoint holds",
    "monteclora_config": "training here lacks the loss that belongs to it",
    "alora_invocation_tokens": "no update would be computed, as the model is not told where in a text it begins",
    "arrow_config": "it needs several adapters, and there is one",
    "use_qalora": "it needs a GPTQ model",
    "qalora_group_size": "it needs a GPTQ model",
    "megatron_config": "it needs a Megatron model",
    "megatron_core": "it needs a Megatron model",
    "runtime_config": "it is about offloading, which does not happen here",
}
ADAPTABLE = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d, Conv1D)


@MODELS.register_module()
class LoRAModel(BaseModel):
    """A frozen model with trained low-rank updates in some of its layers.

    Args:
        module: config of the model.
        lora: fields of peft's LoraConfig, passed on as they are (r, lora_alpha, target_modules, use_dora, ...), except
            that target_modules="all-linear" means the linear layers of the language model and its gated blocks, without
            the output head.
        train_tokens: tokens whose embedding rows are trained too (peft's trainable_token_indices), e.g. ['<image>'].

    Raises:
        ValueError: a field of `lora` is unknown, does not work here, or names something that the model does not have.
    """

    def __init__(self, module: dict, lora: dict, train_tokens: list[str] | None = None):
        config = lora_config(lora)
        module = MODELS.build(module)
        super().__init__(module.data_preprocessor)
        targets = find_targets(module, config)
        if train_tokens:
            embedding = _embedding(module)
            if embedding in targets:
                raise ValueError(
                    f"train_tokens: lora changes all rows of {embedding} already; leave out one of the two"
                )
            config.trainable_token_indices = {embedding: _token_ids(module.tokenizer, train_tokens)}
        self.peft = get_peft_model(module, config)
        # peft freezes every part: the image encoder's running statistics may not move either, no checkpoint holds them.
        module.frozen = PARTS
        # What bias="lora_only" trains is no update beside the weights: `disabled` needs the values of before.
        for number, bias in enumerate(self._trained_biases()):
            self.register_buffer(f"initial_bias_{number}", bias.detach().clone(), persistent=False)
        self.train(self.training)

    @property
    def module(self) -> nn.Module:
        """The wrapped model, its layers carrying the LoRA updates."""
        return self.peft.get_base_model()

    @property
    def tokenizer(self):
        """The wrapped model's tokenizer."""
        return self.module.tokenizer

    def init_weights(self) -> None:
        """Nothing: the parts were built with their weights."""

    def forward(self, *args, **kwargs):
        """As the wrapped model, whose arguments these are."""
        return self.module(*args, **kwargs)

    def generate(self, *args, **kwargs):
        """As the wrapped model, whose arguments these are."""
        return self.module.generate(*args, **kwargs)

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Context manager in which the model answers as it did before tuning."""
        biases = self._trained_biases()
        tuned = [bias.data for bias in biases]
        with self.peft.disable_adapter():
            for number, bias in enumerate(biases):
                bias.data = getattr(self, f"initial_bias_{number}").to(bias.dtype)
            try:
                yield
            finally:
                for bias, value in zip(biases, tuned, strict=True):
                    bias.data = value

    def adapted_layers(self) -> dict[str, BaseTunerLayer]:
        """The layers that carry an update, by the names that they have in the wrapped model without LoRA."""
        named = self.module.named_modules()
        return {name.replace(".base_layer", ""): layer for name, layer in named if isinstance(layer, BaseTunerLayer)}

    def unmergeable_layers(self) -> list[str]:
        """Names of the layers whose update has a bias (lora_bias=True) while the layer has none to add it to."""
        if not self.peft.peft_config["default"].lora_bias:
            return []
        return [name for name, layer in self.adapted_layers().items() if layer.get_base_layer().bias is None]

    def _trained_biases(self) -> list[nn.Parameter]:
        return [p for name, p in self.named_parameters() if p.requires_grad and name.endswith(".base_layer.bias")]


def lora_config(lora: dict) -> LoraConfig:
    """peft's LoraConfig of these fields; ValueError for one that is unknown or does not work here."""
    known = {field.name: field for field in fields(LoraConfig)}
    unknown = sorted(lora.keys() - known.keys())
    if unknown:
        raise ValueError(
            f"lora: peft knows no {unknown[0]!r}; choose among {', '.join(sorted(known.keys() - REFUSED))}"
        )
    for name, reason in REFUSED.items():
        if lora.get(name) and lora[name] != _default(known[name]):
            raise ValueError(f"lora.{name} is not supported: {reason}")
    for name, (choices, reason) in CHOICES.items():
        if name in lora and lora[name] not in choices:
            raise ValueError(f"lora.{name}={lora[name]!r}: {reason}; choose one of {', '.join(map(repr, choices))}")
    return LoraConfig(**lora)


def _default(field: Field) -> object:
    return field.default if field.default is not MISSING else field.default_factory()


def find_targets(module: nn.Module, config: LoraConfig) -> list[str]:
    """Names of the layers of a Flamingo that a LoraConfig adapts, whose target_modules="all-linear" is written out.

    Raises:
        ValueError: an entry of the config reaches no layer, or one in which an update would do nothing or harm; names
            the entry, and the choices.
    """
    modules = dict(module.named_modules())
    head = module.language.get_output_embeddings()
    if isinstance(config.target_modules, str) and config.target_modules.lower() == "all-linear":
        linear = (name for name, part in module.language.named_modules() if isinstance(part, (nn.Linear, Conv1D)))
        config.target_modules = {f"language.{name}" for name in linear if modules[f"language.{name}"] is not head}
        targets = _matched(modules, config)
    else:
        targets = _check_target_modules(module, modules, config)
    targets += _check_target_parameters(module, config)
    if not targets:
        raise ValueError(f"lora has no target_modules; choose among {_choices(module, modules, config)}")
    _check_trainable(module, modules, targets)
    _check_exclusions(modules, config)
    _check_layers(modules, config)
    for field in ("rank_pattern", "alpha_pattern"):
        for key in getattr(config, field) or ():
            if not any(get_pattern_key([key], name) == key for name in targets):
                raise ValueError(f"lora.{field}: {key!r} matches none of the layers that get an update")
    if config.use_bdlora and not all(isinstance(modules[name], nn.Linear) for name in targets):
        raise ValueError("lora.use_bdlora: only nn.Linear layers take it; leave others out of target_modules")
    return targets


def _matched(names, config: LoraConfig, **changes) -> list[str]:
    """Names of the modules that a LoraConfig, with some fields changed, takes."""
    changed = copy(config)
    vars(changed).update(changes)
    return [name for name in names if name and check_target_module_exists(changed, name)]


def _check_target_modules(module: nn.Module, modules: dict[str, nn.Module], config: LoraConfig) -> list[str]:
    wanted = config.target_modules
    entries = [wanted] if isinstance(wanted, str) else sorted(wanted or ())
    found = []
    for entry in entries:
        target = entry if isinstance(wanted, str) else [entry]
        try:
            taken = _matched(modules, config, target_modules=target)
            anywhere = _matched(modules, config, target_modules=target, exclude_modules=None, layers_to_transform=None)
        except re.error as error:
            raise ValueError(f"lora.target_modules={entry!r} is not a regular expression: {error}") from error
        if not taken:
            why = "only modules that exclude_modules or layers_to_transform leaves out" if anywhere else "no module"
            raise ValueError(
                f"lora.target_modules: {entry!r} matches {why}; choose among {_choices(module, modules, config)}"
            )
        whole = [name for name in taken if not isinstance(modules[name], ADAPTABLE)]
        if whole:
            kind = type(modules[whole[0]]).__name__
            raise ValueError(
                f"lora.target_modules: {entry!r} takes {whole[0]}, a {kind}, which LoRA does not adapt; choose among "
                f"{_choices(module, modules, config)}"
            )
        found += taken
    return found


def _choices(module: nn.Module, modules: dict[str, nn.Module], config: LoraConfig) -> str:
    """The names by which a config can choose the layers that LoRA can adapt."""
    names = _matched(modules, config, target_modules=r".*", layers_to_transform=None)
    layers = [name for name in names if isinstance(modules[name], ADAPTABLE) and not _harm(module, modules, name)]
    return ", ".join(sorted({short_name(name) for name in layers}))


def short_name(name: str) -> str:
    """The end of a layer's name by which target_modules chooses it: its last part, with the one before a number."""
    return re.search(r"[^.]+(\.\d+)*$", name)[0]


def _check_target_parameters(module: nn.Module, config: LoraConfig) -> list[str]:
    """Names of the modules that own the parameters of `target_parameters`."""
    owners = []
    for entry in config.target_parameters or ():
        names = (name for name, _ in module.named_parameters(remove_duplicate=False))
        found = [name for name in names if name == entry or name.endswith(f".{entry}")]
        if not found:
            raise ValueError(f"lora.target_parameters: {entry!r} matches no parameter of this model")
        outside = [name for name in found if not name.startswith("language.")]
        if outside:
            raise ValueError(f"lora.target_parameters: {entry!r} takes {outside[0]}, outside of the language model")
        owners += [name.rpartition(".")[0] for name in found]
    return owners


def _check_trainable(module: nn.Module, modules: dict[str, nn.Module], targets: Sequence[str]) -> None:
    for name in targets:
        harm = _harm(module, modules, name)
        if harm:
            raise ValueError(f"lora takes {name}, {harm}; choose other layers, or leave it out by exclude_modules")


def _harm(module: nn.Module, modules: dict[str, nn.Module], name: str) -> str | None:
    """Why an update of a layer would train nothing, or be another model when it is merged; None where it works."""
    tables = (module.language.get_input_embeddings(), module.language.get_output_embeddings())
    if is_tied(module.language) and any(modules[name] is table for table in tables):
        return (
            "but this language model's embedding and output head are one table, which an update would change in one of "
            "its two uses only, and in both when it is merged"
        )
    if isinstance(modules.get(name.rpartition(".")[0]), nn.MultiheadAttention):
        return "a part of nn.MultiheadAttention, which uses its weight without calling it, so that nothing is trained"
    return None


def _check_exclusions(modules: dict[str, nn.Module], config: LoraConfig) -> None:
    excluded = config.exclude_modules or ()
    layers = [name for name, part in modules.items() if isinstance(part, ADAPTABLE)]
    for entry in [excluded] if isinstance(excluded, str) else sorted(excluded):
        try:
            target = entry if isinstance(excluded, str) else [entry]
            found = _matched(layers, config, target_modules=target, exclude_modules=None, layers_to_transform=None)
        except re.error as error:
            raise ValueError(f"lora.exclude_modules={entry!r} is not a regular expression: {error}") from error
        if not found:
            raise ValueError(
                f"lora.exclude_modules: {entry!r} matches no layer that LoRA could adapt; in a list it has to be the "
                r"end of a layer's name, and all layers of the image encoder are the regular expression 'vision\..*'"
            )


def _check_layers(modules: dict[str, nn.Module], config: LoraConfig) -> None:
    indices, patterns = config.layers_to_transform, config.layers_pattern or ()
    for index in [indices] if isinstance(indices, int) else indices or ():
        if not _matched(modules, config, layers_to_transform=[index]):
            raise ValueError(f"lora.layers_to_transform: no layer {index} has a module that target_modules takes")
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        if not _matched(modules, config, layers_pattern=[pattern]):
            raise ValueError(
                f"lora.layers_pattern: {pattern!r} matches no list of layers that target_modules takes from"
            )


def _embedding(module: nn.Module) -> str:
    """The token embedding's name, which every family chooses for itself (embed_tokens, embed_in, wte)."""
    if is_tied(module.language):
        # peft would train the rows of the embedding alone, and merge them into both: another model.
        raise ValueError("train_tokens: this language model's embedding is tied to its output head; leave it None")
    embedding = module.language.get_input_embeddings()
    return next(name for name, part in module.named_modules() if part is embedding)


def _token_ids(tokenizer, tokens: list[str]) -> list[int]:
    ids = tokenizer.convert_tokens_to_ids(tokens)
    unknown = [token for token, i in zip(tokens, ids, strict=True) if i is None or i == tokenizer.unk_token_id]
    if unknown:
        raise ValueError(
            f"train_tokens: the tokenizer does not know {unknown}; it knows {tokenizer.all_special_tokens}"
        )
    return ids
