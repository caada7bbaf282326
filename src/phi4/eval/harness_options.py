"""What other people's harnesses say of a model and of generation, as ours."""

from collections.abc import Mapping
from typing import Any

import torch

from phi4.assistant import Assistant, check_device
from phi4.engine.sampling import Sampling
from phi4.errors import InputError

DEFAULT_MAX_TOKENS = 256
# What their command lines name unless told otherwise, with CUDA and without.
HARNESS_DEVICE = "cuda:0"
DTYPES = ("float32", "bfloat16", "float16")
# What tasks may ask of generation besides stop strings and length.
SAMPLING_NAMES = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
# Lengths have different names, and these ask for what the engine does anyway, or are about another model's pictures.
LENGTH_NAMES = ("max_gen_toks", "max_new_tokens")
NEUTRAL = {
    "num_beams": (1, None),
    "use_cache": (True, False, None),
    "image_aspect_ratio": ("original", "pad", "anyres", None),
}


def load_named(model: str, packs: str | None, device: str | None, dtype: str | None) -> Assistant:
    """Loads a model as the options of a harness name it.

    Args:
        model: a directory, the name of a pulled model, or "nano".
        packs: files that add modalities, with + between them; "none" loads none; None those that come with the model.
        device: where to compute; the harnesses' own default, cuda:0, stands for the best that there is.
        dtype: of the weights; None as `phi4` chooses.

    Raises:
        InputError: there is no such type or device.
    """
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
    named = None if packs is None else [] if packs == "none" else packs.split("+")
    chosen = None if device in (None, HARNESS_DEVICE) else check_device(str(device))
    return Assistant.load(model, packs=named, device=chosen, dtype=getattr(torch, dtype) if dtype else None)


class HarnessModel:
    """One of our models as a harness uses it; batching is the engine's. Stands before the harness's own class.

    Attributes:
        assistant: the model.
        named: as it was asked for.
    """

    def __init__(
        self,
        model: str = "nano",
        packs: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        """Loads a model.

        Args:
            model: with packs, device and dtype, as for `load_named`.
            packs: see there.
            device: see there.
            dtype: see there.
            batch_size: the harness gives it; the engine decides by itself.
            max_batch_size: likewise.
        """
        super().__init__()
        self.assistant = load_named(model, packs, device, dtype)
        self.named = model


def read_settings(settings: Mapping[str, Any]) -> tuple[Sampling, tuple[str, ...]]:
    """A task's settings of generation as ours, and the stop strings. Settings that are None count as not given.

    Raises:
        InputError: there is one that the engine does not have.
    """
    given = {name: value for name, value in settings.items() if value not in NEUTRAL.get(name, (None,))}
    unknown = sorted(given.keys() - {"until", "do_sample", *LENGTH_NAMES, *SAMPLING_NAMES})
    if unknown:
        raise InputError(f"the task asks for {', '.join(unknown)}, which the engine does not have; override gen_kwargs")
    until = given.get("until") or ()
    stop = (until,) if isinstance(until, str) else tuple(until)
    max_tokens = int(next((given[name] for name in LENGTH_NAMES if name in given), DEFAULT_MAX_TOKENS))
    if not given.get("do_sample", given.get("temperature", 0.0) > 0):
        return Sampling(max_tokens), stop
    chosen = {name: given[name] for name in SAMPLING_NAMES if name in given}
    return Sampling(max_tokens, seed=0, **{"temperature": 1.0, **chosen}), stop
