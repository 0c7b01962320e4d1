"""What the entry point group `lmms_eval.models` finds (lmms_eval/models/registry_v2.py of lmms-eval 0.7.3).

Apart from the adapter, as lmms-eval loads every entry point at each start, whichever model it is to run.
"""


def manifest():
    """lmms-eval's ModelManifest of the model `mmgpt`."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="mmgpt", simple_class_path="mmgpt.harness.lmms_eval.MMGPT")
