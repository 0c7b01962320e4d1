"""Registries of mmgpt, children of MMEngine's, so that a config can name the modules of both (scope ``mmgpt``)."""

from mmengine import registry as root
from mmengine.registry import Registry


def _child(name: str, parent: Registry, *locations: str) -> Registry:
    """A registry of mmgpt under one of MMEngine's; importing the modules at its locations fills it."""
    return Registry(name, parent=parent, scope="mmgpt", locations=[f"mmgpt.{module}" for module in locations])


MODELS = _child("model", root.MODELS, "models.registered")
DATASETS = _child("dataset", root.DATASETS, "datasets")
TRANSFORMS = _child("transform", root.TRANSFORMS, "datasets.transforms")
DATA_SAMPLERS = _child("data sampler", root.DATA_SAMPLERS, "datasets")
METRICS = _child("metric", root.METRICS, "evaluation")
HOOKS = _child("hook", root.HOOKS, "engine.registered")
LOOPS = _child("loop", root.LOOPS, "engine.registered")
FUNCTIONS = _child("function", root.FUNCTIONS, "datasets", "inference.predict")
VISBACKENDS = _child("vis_backend", root.VISBACKENDS, "visualization.tracker_backend")
MODEL_WRAPPERS = _child("model_wrapper", root.MODEL_WRAPPERS, "engine.registered")
OPTIM_WRAPPER_CONSTRUCTORS = _child(
    "optimizer wrapper constructor", root.OPTIM_WRAPPER_CONSTRUCTORS, "engine.registered"
)
PARSERS = Registry("parser", scope="mmgpt", locations=["mmgpt.datasets.parsers"])
SCORES = Registry("scoring rule", scope="mmgpt", locations=["mmgpt.evaluation.metrics"])
# Functions without arguments that return a prompt template, see `datasets.prompts.find_template`.
PROMPTS = Registry("prompt template", scope="mmgpt", locations=["mmgpt.datasets.prompts"])
# These registries have no modules of mmgpt's; without them, MMEngine would warn that the scope lacks them.
OPTIMIZERS = _child("optimizer", root.OPTIMIZERS)
OPTIM_WRAPPERS = _child("optim_wrapper", root.OPTIM_WRAPPERS)
PARAM_SCHEDULERS = _child("parameter scheduler", root.PARAM_SCHEDULERS)
LOG_PROCESSORS = _child("log_processor", root.LOG_PROCESSORS)
RUNNERS = _child("runner", root.RUNNERS)
WEIGHT_INITIALIZERS = _child("weight initializer", root.WEIGHT_INITIALIZERS)
EVALUATORS = _child("evaluator", root.EVALUATOR)
VISUALIZERS = _child("visualizer", root.VISUALIZERS)
