"""Tells lmms-eval that there is a model `phi4` (entry point `lmms_eval.models`); light, since it is always read."""

from lmms_eval.models.registry_v2 import ModelManifest


def manifest() -> ModelManifest:
    """The two classes: tasks written as messages are for the chat one, all others for the simple one."""
    module = "phi4.eval.multimodal_harness"
    return ModelManifest("phi4", simple_class_path=f"{module}.Phi4Simple", chat_class_path=f"{module}.Phi4Chat")
