"""LoRA around a registered model, built on peft (Hu et al. 2021, arXiv:2106.09685)."""

import inspect
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import fields

import torch
from mmengine.model import BaseModel
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.config import BdLoraConfig, VeloraConfig
from peft.tuners.tuners_utils import BaseTunerLayer, check_target_module_exists
from peft.utils.other import get_pattern_key
from torch import nn
from transformers.pytorch_utils import Conv1D

from mmgpt.registry import MODELS

from .flamingo import FREEZABLE, Flamingo
from .gated_lm import gated_layers
from .language import is_tied

# The supported values of two fields, and why the others are not. peft's other initialisations change the base's
# weights, which no checkpoint holds (pissa, olora, loftq, corda), or are plain LoRA unless something else is called
# before (eva, lora_ga). bias="all" trains biases far from any update.
CHOICES = {
    "init_lora_weights": (
        (True, False, "gaussian", "orthogonal", "mica"),
        "the weights of the base have to stay as its files have them",
    ),
    "bias": (("none", "lora_only"), "only layers with an update may train their bias"),
}
_OTHER_INITIALISATION = "the init_lora_weights that it belongs to is not supported"
# Unsupported fields of peft's LoraConfig, and why.
REFUSED = {
    "task_type": "leave it out, a Flamingo is not one of transformers' tasks",
    "inference_mode": "nothing would be trained",
    "modules_to_save": "name components in train of the LoRAModel, and tokens in train_tokens",
    "trainable_token_indices": "name the tokens in train_tokens",
    "ensure_weight_tying": "LoRA on a table that is both embedding and output head is refused",
    "layer_replication": "the gated blocks stand between the layers that the base has",
    "loftq_config": _OTHER_INITIALISATION,
    "eva_config": _OTHER_INITIALISATION,
    "corda_config": _OTHER_INITIALISATION,
    "lora_ga_config": _OTHER_INITIALISATION,
    "kasa_config": "it changes the weights of the base, which no checkpoint holds",
    "monteclora_config": "training here lacks the loss that belongs to it",
    "alora_invocation_tokens": "no update would be computed, as the model does not learn where in a prompt it begins",
    "arrow_config": "it needs several adapters, and there is one",
    "use_qalora": "it needs a GPTQ model",
    "qalora_group_size": "it needs a GPTQ model",
    "megatron_config": "it needs a Megatron model",
    "megatron_core": "it needs a Megatron model",
    "runtime_config": "it is about offloading, which is not supported",
}
# The accepted fields that hold settings of their own, in which peft ignores what it does not know.
SETTINGS = {"velora_config": VeloraConfig, "use_bdlora": BdLoraConfig}
NUMBERS = {"r": int, "lora_alpha": (int, float), "lora_dropout": (int, float)}
ALL_LAYERS = dict(layers_to_transform=None, layers_pattern=None)
ADAPTABLE = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d, Conv1D)
TRAINABLE = ("vision", "perceiver", "gated")  # components that can be trained in full beside LoRA


@MODELS.register_module()
class LoRAModel(BaseModel):
    """A frozen Flamingo with trainable low-rank updates in some of its layers, beside components trained in full.

    Args:
        module: config of the Flamingo. All of it but the components of `train` is frozen, whatever its `frozen` says.
        lora: fields of peft's LoraConfig, passed on as they are (r, lora_alpha, target_modules, use_dora, ...), except
            that target_modules="all-linear" means the linear layers of the language model and its gated blocks, without
            the output head and the components of `train`.
        train_tokens: tokens whose embedding rows are trained too (peft's trainable_token_indices), e.g. ['<image>'].
        train: components that are trained in full, of 'vision', 'perceiver' and 'gated': those that a base without
            Flamingo's weights lacks are ['perceiver', 'gated']. Their weights are float32, also beside a bfloat16
            language model; their layers get no update.

    Raises:
        ValueError: a field of `lora` is unknown, is not supported, or names something that the model does not have; or
            a component of `train` is unknown, is not float32, or has a layer that `lora` takes.
    """

    def __init__(
        self, module: dict, lora: dict, train_tokens: list[str] | None = None, train: Sequence[str] | None = None
    ):
        if isinstance(train, str):
            raise ValueError(f"train={train!r} has to be a list of components: train=[{train!r}]")
        config, train = lora_config(lora), tuple(train or ())
        for name in train:
            if name not in TRAINABLE:
                raise ValueError(
                    f"train: {name!r} cannot be trained in full beside LoRA; choose among {', '.join(TRAINABLE)}"
                )
        module = {**module, "frozen": [name for name in module.get("frozen", FREEZABLE) if name not in train]}
        # Without a dtype, gated blocks that are trained are float32, and frozen ones as the language model is.
        module["gated"] = {"dtype": "float32" if "gated" in train else None, **(module.get("gated") or {})}
        module = MODELS.build(module)
        super().__init__(module.data_preprocessor)
        targets = find_targets(module, config, train)
        if train_tokens:
            if is_tied(module.language):
                # peft would train the rows of the embedding alone, and merge them into both: another model.
                raise ValueError(
                    "train_tokens: this language model's embedding is tied to its output head; leave it None"
                )
            # The embedding's name differs by family (embed_tokens, embed_in, wte).
            table = module.language.get_input_embeddings()
            embedding = next(name for name, child in module.named_modules() if child is table)
            if embedding in targets:
                raise ValueError(
                    f"train_tokens: lora changes all rows of {embedding} already; leave out one of the two"
                )
            ids, tokenizer = module.tokenizer.convert_tokens_to_ids(train_tokens), module.tokenizer
            unknown = [t for t, i in zip(train_tokens, ids, strict=True) if i is None or i == tokenizer.unk_token_id]
            if unknown:
                raise ValueError(
                    f"train_tokens: the tokenizer does not know {unknown}; it knows {tokenizer.all_special_tokens}"
                )
            config.trainable_token_indices = {embedding: ids}
        self.peft = get_peft_model(module, config)
        # peft freezes all components; running statistics of the image encoder, which no checkpoint holds, stay too.
        module.frozen = tuple(name for name in FREEZABLE if name not in train)
        self.trained_in_full = train
        for name in train:
            for part in components(module, name):
                part.requires_grad_(True)
        # bias="lora_only" trains the biases themselves, whose initial values `disabled` restores.
        for number, bias in enumerate(self._trainable_biases()):
            self.register_buffer(f"initial_bias_{number}", bias.detach().clone(), persistent=False)
        self.train(self.training)

    @property
    def flamingo(self) -> Flamingo:
        """The wrapped model, its layers carrying the LoRA updates."""
        return self.peft.get_base_model()

    @property
    def module(self) -> Flamingo:
        """Same as `flamingo`, by the name that the config gives it."""
        return self.flamingo

    @property
    def tokenizer(self):
        """The wrapped model's tokenizer."""
        return self.module.tokenizer

    def init_weights(self) -> None:
        """Do nothing: components are built with their weights."""

    def forward(self, *args, **kwargs):
        """Same as the wrapped model's, whose arguments these are."""
        return self.module(*args, **kwargs)

    def generate(self, *args, **kwargs):
        """Same as the wrapped model's, whose arguments these are."""
        return self.module.generate(*args, **kwargs)

    def settings_in_force(self, *args, **kwargs) -> dict:
        """Same as the wrapped model's, whose arguments these are."""
        return self.module.settings_in_force(*args, **kwargs)

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Context manager in which the model answers as it did before tuning.

        Raises:
            ValueError: components are trained in full, whose weights before tuning no longer exist.
        """
        if self.trained_in_full:
            raise ValueError(
                f"the model before tuning no longer exists: train={list(self.trained_in_full)} changes all weights of "
                "these components; build a second model, without the checkpoint"
            )
        biases = self._trainable_biases()
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
        """The layers with an update, by their names in the wrapped model without LoRA."""
        named = self.module.named_modules()
        return {name.replace(".base_layer", ""): layer for name, layer in named if isinstance(layer, BaseTunerLayer)}

    def layers_taken(self, **changes) -> set[str]:
        """Names of the modules that target_modules take; `changes` are other values for fields of LoraConfig."""
        named = (name.replace(".base_layer", "") for name, _ in self.module.named_modules())
        return set(_matched((n for n in named if ".lora_" not in n), self.peft.peft_config["default"], **changes))

    def unmergeable_layers(self) -> list[str]:
        """Names of the layers without a bias whose update has one (lora_bias=True)."""
        if not self.peft.peft_config["default"].lora_bias:
            return []
        return [name for name, layer in self.adapted_layers().items() if layer.get_base_layer().bias is None]

    def _trainable_biases(self) -> list[nn.Parameter]:
        return [p for name, p in self.named_parameters() if p.requires_grad and name.endswith(".base_layer.bias")]


def flamingo_of(model: Flamingo | LoRAModel | PeftModel) -> Flamingo:
    """The Flamingo that a LoRAModel or peft's wrapper is around, or the model itself."""
    return model.get_base_model() if isinstance(model, PeftModel) else getattr(model, "flamingo", model)


def components(module: Flamingo, name: str) -> list[nn.Module]:
    """The modules of a Flamingo that a name of TRAINABLE stands for: one, or all gated blocks."""
    return [layer.gated for layer in gated_layers(module)] if name == "gated" else [getattr(module, name)]


def lora_config(lora: Mapping) -> LoraConfig:
    """peft's LoraConfig of these fields; ValueError for an unknown or unsupported field."""
    if not isinstance(lora, Mapping):
        raise ValueError(f"lora={lora!r:.80}: give a dict of fields of peft's LoraConfig")
    for name, kinds in NUMBERS.items():
        if name in lora and (isinstance(lora[name], bool) or not isinstance(lora[name], kinds)):
            raise ValueError(f"lora.{name}={lora[name]!r}: give {'a whole number' if kinds is int else 'a number'}")
    names = {field.name for field in fields(LoraConfig)}
    _check_names(lora, "lora: peft's LoraConfig", names - REFUSED.keys(), names)
    defaults = LoraConfig()
    for name, reason in REFUSED.items():
        if lora.get(name) and lora[name] != getattr(defaults, name):
            raise ValueError(f"lora.{name} is not supported: {reason}")
    for name, (choices, reason) in CHOICES.items():
        # The texts of the values are compared, since 1 == True.
        if name in lora and repr(lora[name]) not in map(repr, choices):
            raise ValueError(f"lora.{name}={lora[name]!r}: {reason}; choose one of {', '.join(map(repr, choices))}")
    for name, kind in SETTINGS.items():
        if isinstance(lora.get(name), Mapping):
            settings = [field.name for field in fields(kind)]
            _check_names(lora[name], f"lora.{name}: peft's {kind.__name__}", settings, settings)
    for name in ("target_modules", "exclude_modules", "rank_pattern", "alpha_pattern"):
        value = lora.get(name)
        for pattern in [value] if isinstance(value, str) else value if isinstance(value, Mapping) else ():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"lora.{name}: {pattern!r} is not a regular expression: {error}") from error
    return LoraConfig(**lora)


def _check_names(names: Iterable[str], kind: str, choices: Iterable[str], accepted: Container[str]) -> None:
    unknown = [name for name in names if name not in accepted]
    if unknown:
        raise ValueError(f"{kind} has no {unknown[0]!r}; choose among {', '.join(sorted(choices))}")


def find_targets(module: nn.Module, config: LoraConfig, train: Sequence[str] = ()) -> list[str]:
    """Names of the layers of a Flamingo that a LoraConfig adapts; its target_modules="all-linear" becomes their names.

    Args:
        train: components that are trained in full.

    Raises:
        ValueError: an entry of the config reaches no layer, or one in which an update would do nothing or harm; names
            the entry, and the choices. A component of `train` is not float32.
    """
    modules, in_full = dict(module.named_modules()), _layers_in_full(module, train)
    harm = _harmful_layers(module) | in_full
    layers = [name for name, layer in modules.items() if isinstance(layer, ADAPTABLE)]
    usable = _matched([name for name in layers if name not in harm], config, target_modules=r".*", **ALL_LAYERS)
    choices = ", ".join(sorted({short_name(name) for name in usable}))
    if isinstance(config.target_modules, str) and config.target_modules.lower() == "all-linear":
        linear = (name for name in layers if isinstance(modules[name], (nn.Linear, Conv1D)))
        head = module.language.get_output_embeddings()
        linear = (name for name in linear if modules[name] is not head and name not in in_full)
        config.target_modules = {name for name in linear if name.startswith("language.")}
        targets = _matched(layers, config)
    else:
        targets = _check_target_modules(modules, config, choices)
    targets += _parameter_owners(module, config)
    if not targets:
        raise ValueError(f"lora adapts no layer; set its target_modules, and choose among {choices}")
    for name in targets:
        if name in harm:
            raise ValueError(f"lora takes {name}, {harm[name]}; choose other layers, or exclude it by exclude_modules")
    _check_choices(layers, targets, config)
    if config.use_bdlora and not all(isinstance(modules[name], nn.Linear) for name in targets):
        raise ValueError("lora.use_bdlora: only nn.Linear layers take it; leave others out of target_modules")
    return targets


def short_name(name: str) -> str:
    """The end of a layer's name by which target_modules chooses it, with what stands before a number."""
    return re.search(r"[^.]+(\.\d+)*$", name)[0]


def _matched(names: Iterable[str], config: LoraConfig, **changes: object) -> list[str]:
    """Those names that a LoraConfig takes when some of its fields are changed."""
    changed = copy(config)
    vars(changed).update(changes)
    return [name for name in names if name and check_target_module_exists(changed, name)]


def _harmful_layers(module: nn.Module) -> dict[str, str]:
    """The layers of a Flamingo in which an update would train nothing, or would change when merged, with the reason."""
    harm, language = {}, module.language
    tables = (language.get_input_embeddings(), language.get_output_embeddings()) if is_tied(language) else ()
    for name, child in module.named_modules():
        if any(child is table for table in tables):
            harm[name] = (
                "but this language model's embedding and output head are one table, which an update would change in "
                "one of its two uses only, and in both when it is merged"
            )
        if (
            isinstance(child, nn.Embedding)
            and not {"input", "input_ids"} & inspect.signature(child.forward).parameters.keys()
        ):
            harm[name] = "an embedding that is called with other arguments than ids (of positions, as OPT's)"
        if isinstance(child, nn.MultiheadAttention):
            harm[f"{name}.out_proj"] = (
                "a layer of nn.MultiheadAttention, which uses its weight without calling it, so that nothing is trained"
            )
    return harm


def _layers_in_full(module: Flamingo, train: Sequence[str]) -> dict[str, str]:
    """The modules of a Flamingo within the components of `train`, by name, with the reason not to adapt them."""
    names, in_full = {id(child): name for name, child in module.named_modules()}, {}
    for component in train:
        for part in components(module, component):
            for parameter, weight in part.named_parameters():
                if weight.dtype != torch.float32:
                    raise ValueError(
                        f"train: {component!r} is trained in float32, and its {parameter} is "
                        f"{str(weight.dtype).removeprefix('torch.')}, in whose rounding small steps vanish: set "
                        f"{component}.dtype to 'float32', or leave it out"
                    )
            reason = f"a layer of {component!r}, which train={list(train)} trains in full"
            in_full |= {names[id(child)]: reason for child in part.modules()}
    return in_full


def _check_target_modules(modules: Mapping[str, nn.Module], config: LoraConfig, choices: str) -> list[str]:
    target_modules, names = config.target_modules, []
    for entry in [target_modules] if isinstance(target_modules, str) else sorted(target_modules or ()):
        target = entry if isinstance(target_modules, str) else [entry]
        matches = _matched(modules, config, target_modules=target)
        if not matches:
            anywhere = _matched(modules, config, target_modules=target, exclude_modules=None, **ALL_LAYERS)
            why = "only modules that exclude_modules or layers_to_transform leaves out" if anywhere else "no module"
            raise ValueError(f"lora.target_modules: {entry!r} matches {why}; choose among {choices}")
        for name in matches:
            if not isinstance(modules[name], ADAPTABLE):
                kind = type(modules[name]).__name__
                raise ValueError(
                    f"lora.target_modules: {entry!r} takes {name}, a {kind}, which LoRA does not adapt; choose among "
                    f"{choices}"
                )
        names += matches
    return names


def _parameter_owners(module: nn.Module, config: LoraConfig) -> list[str]:
    """Names of the modules that own the parameters of `target_parameters`."""
    owners = []
    for entry in config.target_parameters or ():
        names = (name for name, _ in module.named_parameters(remove_duplicate=False))
        matches = [name for name in names if name == entry or name.endswith(f".{entry}")]
        if not matches:
            raise ValueError(f"lora.target_parameters: {entry!r} matches no parameter of this model")
        outside = [name for name in matches if not name.startswith("language.")]
        if outside:
            raise ValueError(f"lora.target_parameters: {entry!r} takes {outside[0]}, outside of the language model")
        owners += [name.rpartition(".")[0] for name in matches]
    return owners


def _check_choices(layers: Iterable[str], targets: Iterable[str], config: LoraConfig) -> None:
    """Raises a ValueError for a field that narrows or refines `target_modules` and has an entry that fits no layer."""
    excluded = config.exclude_modules or ()
    for entry in [excluded] if isinstance(excluded, str) else sorted(excluded):
        target = entry if isinstance(excluded, str) else [entry]
        if not _matched(layers, config, target_modules=target, exclude_modules=None, **ALL_LAYERS):
            raise ValueError(
                f"lora.exclude_modules: {entry!r} matches no layer that LoRA could adapt; in a list it has to be the "
                r"end of a layer's name, and all layers of the image encoder are the regular expression 'vision\..*'"
            )
    indices, lists = config.layers_to_transform, config.layers_pattern or ()
    for index in [indices] if isinstance(indices, int) else indices or ():
        if not _matched(layers, config, layers_to_transform=[index]):
            raise ValueError(f"lora.layers_to_transform: no layer {index} has a module that target_modules takes")
    for name in [lists] if isinstance(lists, str) else lists:
        if not _matched(layers, config, layers_pattern=[name]):
            raise ValueError(f"lora.layers_pattern: {name!r} is not a list of layers that target_modules takes from")
    for field in ("rank_pattern", "alpha_pattern"):
        for pattern in getattr(config, field) or ():
            if not any(get_pattern_key([pattern], name) == pattern for name in targets):
                raise ValueError(f"lora.{field}: {pattern!r} matches none of the layers that get an update")
    for field in ("target_modules_bd_a", "target_modules_bd_b") if config.use_bdlora else ():
        for entry in getattr(config.use_bdlora, field) or ():
            if not any(entry in name for name in targets):
                raise ValueError(f"lora.use_bdlora.{field}: {entry!r} matches none of the layers that get an update")
