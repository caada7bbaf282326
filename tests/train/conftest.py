"""A tiny base with two packs, toy data in shards, and one finished run."""

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from phi4.checkpoint.convert import convert
from phi4.checkpoint.digest import base_digest
from phi4.checkpoint.layouts import open_checkpoint
from phi4.checkpoint.weights import LoadedModel, load_model
from phi4.data.example import Example, encode_example
from phi4.data.record import Record
from phi4.data.shards import write_shards
from phi4.processing.processor import Processor
from phi4.processing.tokenizer import Tokenizer
from phi4.train.recipe import load_stage
from phi4.train.run import RunResult, train_stage
from phi4.train.stage import Stage
from train import stages
from train.toys import colours, tones

RECIPE = Path(stages.__file__)
DROPOUT = 0.3


@dataclass(frozen=True)
class Setting:
    """What every run begins with.

    Attributes:
        base: directory of the language model.
        packs: vision and speech.
        data: a folder of shards for each data set.
    """

    base: Path
    packs: tuple[Path, ...]
    data: Path

    def train(self, stage: Stage, run: Path, **options: Any) -> RunResult:
        """Trains a stage from these files."""
        return train_stage(stage, self.base, self.packs, self.data, run, **options)

    def load(self, packs: Iterable[Path] | None = None, **options: Any) -> LoadedModel:
        """Loads the base with these or other packs."""
        return load_model(self.base, packs=self.packs if packs is None else list(packs), **options)

    def tokenizer(self) -> Tokenizer:
        """The language model's."""
        loaded = self.load()
        return Processor.load(loaded.directory, loaded.config, loaded.preprocessor).tokenizer

    def arguments(self, stage: str, run: Path) -> list[str]:
        """The same as `train` for the command line."""
        packs = [f"--pack={pack}" for pack in self.packs]
        return ["train", f"{RECIPE}:{stage}", f"--model={self.base}", *packs, f"--data={self.data}", f"--out={run}"]


@pytest.fixture(scope="session")
def setting(tiny_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """The tiny checkpoint taken apart, its adapters with much dropout, and toy data."""
    directory = tmp_path_factory.mktemp("train")
    convert(tiny_directory, directory / "packed", "packs")
    packs = tuple(directory / "packed" / f"{name}.safetensors" for name in ("vision", "speech"))
    for pack in packs:
        set_dropout(pack, DROPOUT)
    write_toys(directory / "data", {"colours": colours, "tones": tones})
    return Setting(directory / "packed" / "base", packs, directory / "data")


@pytest.fixture(scope="session")
def setting_float32(setting: Setting, tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """The same numbers stored as float32, for runs that differ by the rounding of sums and are to be compared."""
    directory = tmp_path_factory.mktemp("float32")
    base = Path(shutil.copytree(setting.base, directory / "base"))
    for path in base.glob("*.safetensors"):
        widen(path)
    digest = base_digest(open_checkpoint(base).tensors)
    packs = tuple(Path(shutil.copy(pack, directory)) for pack in setting.packs)
    for pack in packs:
        widen(pack, base_digest=digest)
    return replace(setting, base=base, packs=packs)


@pytest.fixture
def calm(setting: Setting, tmp_path: Path) -> Setting:
    """The same setting without dropout."""
    return without_dropout(setting, tmp_path)


@pytest.fixture
def calm_float32(setting_float32: Setting, tmp_path: Path) -> Setting:
    """The same without dropout, in float32."""
    return without_dropout(setting_float32, tmp_path)


@pytest.fixture(scope="session")
def finished(setting: Setting, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of the stage `mixed` that nothing interrupted."""
    run = tmp_path_factory.mktemp("runs") / "finished"
    setting.train(load_stage(f"{RECIPE}:mixed"), run)
    return run


@pytest.fixture(scope="session")
def encode(setting: Setting) -> Callable[[Record], Example]:
    """Makes examples of records."""
    loaded = setting.load()
    processor = Processor.load(loaded.directory, loaded.config, loaded.preprocessor)
    return partial(encode_example, processor=processor, eos_token_ids=loaded.generation.eos_token_ids)


def write_toys(directory: Path, builders: Mapping[str, Callable[..., list[Record]]]) -> None:
    """Writes a folder of shards for each data set."""
    for name, build in builders.items():
        write_shards([*build(12, "train"), *build(3, "valid")], directory / name)


def without_dropout(setting: Setting, directory: Path) -> Setting:
    """The setting with packs that have no dropout, which are written into a directory."""
    packs = tuple(Path(shutil.copy(pack, directory / f"calm-{pack.name}")) for pack in setting.packs)
    for pack in packs:
        set_dropout(pack, 0.0)
    return replace(setting, packs=packs)


def widen(path: Path, **changes: str) -> None:
    """Stores the tensors of a safetensors file as float32, and changes some of its metadata."""
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata() or {})
    save_file({name: tensor.float() for name, tensor in load_file(path).items()}, path, metadata | changes)


def set_dropout(pack: Path, dropout: float) -> None:
    """Changes the dropout of a pack's adapter."""
    with safe_open(pack, framework="pt") as file:
        metadata = dict(file.metadata())
    config = json.loads(metadata["config"])
    config[f"{metadata['modality']}_lora"]["dp"] = dropout
    save_file(load_file(pack), pack, {**metadata, "config": json.dumps(config)})


def read_metrics(run: Path) -> list[dict[str, float]]:
    """What a run reported, in order."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run: Path) -> list[dict[str, float]]:
    """The losses, by step and data set."""
    return [
        {key: value for key, value in report.items() if key == "step" or key.endswith("/loss")}
        for report in read_metrics(run)
    ]
