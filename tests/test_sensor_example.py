"""The modality of examples/sensor.py: what it makes of traces, and its place beside vision and speech."""

import importlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from phi4 import InputError
from phi4.checkpoint.convert import convert
from phi4.checkpoint.fragments import added_fragment
from phi4.checkpoint.layouts import open_checkpoint
from phi4.checkpoint.new_pack import write_new_pack
from phi4.config import AdapterConfig
from phi4.data.shards import write_shards
from phi4.train.run import train_stage
from phi4.train.stage import Source, Stage
from phi4.verify import verify

CONFIG = {"window": 20}


@pytest.fixture(scope="module")
def sensor() -> Iterator[ModuleType]:
    """The example, imported as Python does when it is run: its folder is where imports start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent.parent / "examples"))
        yield importlib.import_module("sensor")


def to_csv(samples: np.ndarray) -> bytes:
    return "\n".join(",".join(map(str, sample)) for sample in samples).encode()


def test_it_trains_and_changes_nothing_beside_vision_and_speech(
    sensor: ModuleType, tiny_directory: Path, tmp_path: Path
) -> None:
    convert(tiny_directory, tmp_path / "split", "packs")
    base, new = tmp_path / "split" / "base", tmp_path / "new.safetensors"
    fragment = added_fragment(CONFIG, AdapterConfig(rank=4, alpha=8.0), token_id=259)
    write_new_pack(new, open_checkpoint(base), "sensor", fragment, {}, modalities=[sensor.SENSOR])
    records = [replace(r, split="test" if n < 2 else "train") for n, r in enumerate(sensor.make_records(10, seed=0))]
    write_shards(records, tmp_path / "data" / "traces")
    stage = Stage(
        name="words",
        trains=("sensor", "sensor.adapter"),
        sources=(Source("traces"),),
        steps=3,
        learning_rate=1e-2,
        warmup_steps=1,
        rows_per_step=1,
        tokens_per_row=256,
    )
    run = train_stage(stage, base, [new], tmp_path / "data", tmp_path / "run", modalities=[sensor.SENSOR])
    packs = [run.packs["sensor"], *(tmp_path / "split" / f"{name}.safetensors" for name in ("vision", "speech"))]
    verification = verify(base, packs, tmp_path / "data", modalities=[sensor.SENSOR])
    assert verification.passed
    assert verification.media_difference
    assert [(proof.media, proof.together.records) for proof in verification.answers] == [("sensor", 2)]


def test_what_it_makes_of_a_trace_does_not_depend_on_how_the_sensor_lies(sensor: ModuleType) -> None:
    rng = np.random.default_rng(0)
    samples, axes = rng.normal(size=(100, 3)), np.linalg.qr(rng.normal(size=(3, 3)))[0]
    spectra = [sensor.prepare(to_csv(one), CONFIG) for one in (samples, samples @ axes)]
    torch.testing.assert_close(spectra[0], spectra[1])
    assert spectra[0].shape == (5, 11)


def test_samples_behind_the_last_whole_window_are_left_out(sensor: ModuleType) -> None:
    samples = np.random.default_rng(0).normal(size=(59, 3))
    assert torch.equal(sensor.prepare(to_csv(samples), CONFIG), sensor.prepare(to_csv(samples[:40]), CONFIG))


@pytest.mark.parametrize("trace", [b"0,1,0\n" * 19, b"0,1\n" * 20, b"x,y,z\n" * 20, b"0,nan,0\n" * 20, b"\xff" * 20])
def test_what_is_no_trace_is_refused(sensor: ModuleType, trace: bytes) -> None:
    with pytest.raises(InputError, match="must have 20 lines of numbers x,y,z, or more"):
        sensor.prepare(trace, CONFIG)
