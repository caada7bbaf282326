"""Modality: what a kind of media from outside the package must bring to be added to a language model."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from phi4.errors import ConfigError

# Words that begin tensor names already: in our models, and in the release beside `embed_tokens_extend`.
RESERVED_NAMES = frozenset({"audio", "image", "language", "lm_head", "model", "speech", "vision"})


@dataclass(frozen=True)
class Modality:
    """A modality from outside: its name, and how its media become rows of the language model.

    `vision` and `speech` are built in; any other is a value of this class, defined in a file of its own and handed to
    `load_model` or `Assistant.load`. What a conversation of it looks like: `Signal(name, source)` in a message.

    Attributes:
        name: small letters, digits and underscores. It names the adapter, the tensors and the media in messages.
        read_config: turns the JSON object that the pack carries into the `config` of the other three. Refuses what it
            cannot use with a ConfigError, KeyError, TypeError or ValueError.
        build_encoder: (config, hidden of the language model) -> encoder with projector. Called with the data of one
            medium, it returns [tokens, hidden]. Its state must be parameters and persistent buffers, all of one dtype,
            which need not be that of the data.
        prepare: (source, config) -> data of one medium, a tensor or a frozen dataclass of tensors and plain values.
            Refuses a source with an InputError.
        count_tokens: (data, config) -> how many rows the encoder will return.
    """

    name: str
    read_config: Callable[[Mapping[str, Any]], Any]
    build_encoder: Callable[[Any, int], nn.Module]
    prepare: Callable[[Any, Any], Any]
    count_tokens: Callable[[Any, Any], int]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise ConfigError(
                f"a modality cannot be named {self.name!r}; small letters, digits and underscores make a name"
            )
        # Adapters are kept in a ModuleDict, which has attributes of its own.
        if self.name in RESERVED_NAMES or hasattr(nn.ModuleDict(), self.name):
            raise ConfigError(f"a modality cannot be named {self.name!r}: that word has a meaning of its own already")


@dataclass(frozen=True)
class AddedModality:
    """A modality from outside as one model has it.

    Attributes:
        modality: how it works.
        config: what its `read_config` made of the pack's configuration.
        token_id: its placeholder.
    """

    modality: Modality
    config: Any
    token_id: int
