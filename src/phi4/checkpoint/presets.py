"""Named configurations that come with the package: two of released size, two that fit anywhere."""

from dataclasses import dataclass
from importlib import resources
from typing import Any

from phi4.checkpoint.config_json import read_config
from phi4.checkpoint.directories import CONFIG_FILE, GENERATION_FILE, PREPROCESSOR_FILE
from phi4.config import ModelConfig
from phi4.errors import ConfigError
from phi4.json_file import read_json

# tiny: both modalities, every part exercised, made up. nano: SmolLM2-135M's sizes. mini and multimodal: the release's.
PRESETS = ("tiny", "nano", "mini", "multimodal")


@dataclass(frozen=True)
class Preset:
    """The configuration files of a model of one size.

    Attributes:
        name: one of `PRESETS`.
        config: `config.json`, read.
        generation: `generation_config.json`, as it is.
        preprocessor: `preprocessor_config.json`, as it is; empty for a language model.
    """

    name: str
    config: ModelConfig
    generation: dict[str, Any]
    preprocessor: dict[str, Any]


def load_preset(name: str) -> Preset:
    """Reads a preset.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in PRESETS:
        raise ConfigError(f"there is no preset {name!r}; there are {', '.join(PRESETS)}")
    with resources.as_file(resources.files("phi4.checkpoint") / "presets" / name) as directory:
        preprocessor = directory / PREPROCESSOR_FILE
        return Preset(
            name=name,
            config=read_config(read_json(directory / CONFIG_FILE)),
            generation=read_json(directory / GENERATION_FILE),
            preprocessor=read_json(preprocessor) if preprocessor.is_file() else {},
        )
