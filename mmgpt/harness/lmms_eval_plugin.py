"""Entry point of the group `lmms_eval.models` (lmms_eval/models/registry_v2.py of lmms-eval 0.7.3).

lmms-eval loads all entry points at each start, whichever model it runs. The adapter, which is slow to import, is
therefore another module.
"""


def manifest():
    """lmms-eval's ModelManifest of the model `mmgpt`."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="mmgpt", simple_class_path="mmgpt.harness.lmms_eval.MMGPT")
