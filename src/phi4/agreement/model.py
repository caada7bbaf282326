"""The model that judges: loaded once in each process, when the first document comes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from phi4.assistant import DEFAULT_MODEL, Assistant
from phi4.errors import ConfigError


@dataclass(frozen=True)
class Judge:
    """Which model a step asks.

    Attributes:
        model: as for `Assistant.load`.
        packs: files; None for those that come with the model.
    """

    model: str
    packs: tuple[Path, ...] | None

    @classmethod
    def of(cls, model: str | Path, packs: Sequence[str | Path] | None) -> "Judge":
        """Makes paths absolute: recipes are loaded in the command's folder, their steps run anywhere."""
        named = str(model) == DEFAULT_MODEL or not Path(model).is_dir()
        name = str(model) if named else str(Path(model).resolve())
        return cls(name, None if packs is None else tuple(Path(pack).resolve() for pack in packs))

    @property
    def files(self) -> tuple[Path, ...]:
        """What was named by its place: weights, with adapters in folders of their own, and how they are used."""
        folder = Path(self.model)
        kinds = ("*.safetensors", "*.json", "*.jinja") if folder.is_absolute() else ()
        return (*sorted(path for kind in kinds for path in folder.rglob(kind)), *(self.packs or ()))

    def load(self, modality: str) -> Assistant:
        """Loads the model, once in a process.

        Raises:
            ConfigError: it does not have the modality.
        """
        assistant = _load(self)
        if modality not in {media.modality for media in assistant.processor.media_processors}:
            raise ConfigError(f"{self.model} has no {modality}; name another model, or a pack that adds it")
        return assistant


@cache
def _load(judge: Judge) -> Assistant:
    return Assistant.load(judge.model, packs=judge.packs)
