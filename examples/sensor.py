"""A third sense from outside: `nano` learns to say what an accelerometer felt, and nothing in phi4 changes for it."""

from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch
from sensor_data import DESCRIPTIONS, QUESTION, draw, make_records, make_traces

from phi4 import Assistant, InputError, Message, Modality, Signal
from phi4.checkpoint.fragments import added_fragment
from phi4.checkpoint.layouts import open_checkpoint
from phi4.checkpoint.nano import PACKS
from phi4.checkpoint.new_pack import write_new_pack
from phi4.config import AdapterConfig
from phi4.data.shards import write_shards
from phi4.train.run import train_stage
from phi4.train.stage import Source, Stage


class Encoder(torch.nn.Sequential):
    """Makes a row of the language model for each window: [windows, frequencies] -> [windows, hidden]."""

    def __init__(self, config: dict[str, int], hidden: int) -> None:
        super().__init__(torch.nn.Linear(config["window"] // 2 + 1, 128), torch.nn.GELU(), torch.nn.Linear(128, hidden))

    def forward(self, spectra: torch.Tensor) -> torch.Tensor:  # noqa: D102
        return super().forward(spectra.to(self[0].weight))


def prepare(csv: bytes, config: dict[str, int]) -> torch.Tensor:
    """Measures how strong each frequency is in each window of samples, whichever way the sensor lies."""
    try:
        samples = np.asarray_chkfinite(np.loadtxt(csv.decode().splitlines(), delimiter=",", usecols=(0, 1, 2), ndmin=2))
        windows = np.lib.stride_tricks.sliding_window_view(samples, config["window"], axis=0)[:: config["window"]]
    except ValueError as error:
        raise InputError(f"a trace must have {config['window']} lines of numbers x,y,z, or more: {error}") from error
    return torch.from_numpy(np.log(np.linalg.norm(np.fft.rfft(windows), axis=1) + 0.1))


SENSOR = Modality("sensor", dict, Encoder, prepare, count_tokens=lambda spectra, config: len(spectra))

if __name__ == "__main__":
    bare = Assistant.load("nano", packs=())
    base, folder = bare.loaded.directory, Path(mkdtemp(prefix="sensor-", dir="."))
    new, parts, data = folder / "new.safetensors", ("sensor", "sensor.adapter"), (Source("traces"),)
    fragment = added_fragment({"window": 20}, AdapterConfig(rank=8, alpha=16.0), token_id=8)  # Chats never use it.
    write_new_pack(new, open_checkpoint(base), "sensor", fragment, {}, modalities=[SENSOR])
    write_shards(make_records(480, seed=0), folder / "data" / "traces")
    stage = Stage("say", parts, data, steps=60, learning_rate=2e-3, warmup_steps=5, rows_per_step=1, tokens_per_row=320)
    pack = train_stage(stage, base, [new], folder / "data", folder / "run", modalities=[SENSOR]).packs["sensor"]
    assistant, right = Assistant.load("nano", packs=[*PACKS, pack], modalities=[SENSOR]), 0
    for words, trace in make_traces(len(DESCRIPTIONS), seed=1):
        answer = assistant.reply([Message("user", (Signal("sensor", trace), QUESTION))]).answer.text
        print(draw(trace), answer)
        right += answer == words
    print(f"{right} of {len(DESCRIPTIONS)} held-out traces are right, where chance is one. The pack is {pack}.")
    before, after = (one.ask("What is the capital of France?") for one in (bare, assistant))
    print(f"{after.text} [the same tokens as without the pack: {before.token_ids == after.token_ids}]")
