"""A modality from outside: added, saved as a pack, loaded beside vision and speech, and in nobody's way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch import nn

from cached_pass import cached_logits
from phi4 import (
    Assistant,
    CheckpointError,
    ConfigError,
    Image,
    InputError,
    Message,
    Modality,
    Sampling,
    Signal,
    Sound,
)
from phi4.checkpoint.convert import convert
from phi4.checkpoint.digest import base_digest
from phi4.checkpoint.fragments import added_fragment
from phi4.checkpoint.inspect import inspect_checkpoint
from phi4.checkpoint.keymap import Layout
from phi4.checkpoint.layouts import open_checkpoint
from phi4.checkpoint.new_pack import write_new_pack
from phi4.checkpoint.packs import read_pack, save_pack
from phi4.checkpoint.weights import LoadedModel, load_model, save_model
from phi4.config import AdapterConfig
from phi4.engine.whole_pass import score
from phi4.model.multimodal import Phi4Multimodal
from phi4.processing.messages import read_messages
from phi4.processing.processor import Processor

PLACEHOLDER = 259
CONFIG = {"channels": 3, "window": 4}
ADAPTER = AdapterConfig(rank=4, alpha=8.0)

PICTURE = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8))
SOUND = (np.sin(np.arange(8000) * 0.05).astype(np.float32), 16000)
SAMPLES = np.random.default_rng(1).normal(size=(18, 3)).astype(np.float32)


@dataclass(frozen=True)
class SensorConfig:
    channels: int
    window: int


@dataclass(frozen=True)
class Samples:
    """[samples, channels], a whole number of windows."""

    values: torch.Tensor


class SensorEncoder(nn.Module):
    """One row for each window of samples."""

    def __init__(self, config: SensorConfig, hidden_size: int) -> None:
        super().__init__()
        self.window = config.window
        self.up = nn.Linear(config.window * config.channels, hidden_size)
        self.register_buffer("scale", torch.full((1,), 2.0))

    def forward(self, samples: Samples) -> torch.Tensor:
        values = samples.values.to(self.up.weight) * self.scale
        return self.up(values.unflatten(0, (-1, self.window)).flatten(1))


def prepare_samples(source: np.ndarray, config: SensorConfig) -> Samples:
    if source.ndim != 2 or source.shape[1] != config.channels:
        raise InputError(f"samples must be [samples, {config.channels}], not {source.shape}")
    return Samples(torch.from_numpy(np.pad(source, ((0, -len(source) % config.window), (0, 0)))))


SENSOR = Modality(
    name="sensor",
    read_config=lambda raw: SensorConfig(**raw),
    build_encoder=SensorEncoder,
    prepare=prepare_samples,
    count_tokens=lambda samples, config: len(samples.values) // config.window,
)


def load_untrained(
    base: Path,
    path: Path,
    modality: Modality = SENSOR,
    config: Mapping[str, Any] = CONFIG,
    token_id: int = PLACEHOLDER,
    packs: Sequence[Path] = (),
) -> LoadedModel:
    """The base with a modality that nothing trained yet, beside other packs; `path` is its pack."""
    fragment = added_fragment(config, ADAPTER, token_id)
    write_new_pack(path, open_checkpoint(base), modality.name, fragment, {}, modalities=[modality])
    return load_model(base, packs=[path, *packs], modalities=[modality])


def save_sensor(extended: LoadedModel, path: Path) -> Path:
    assert isinstance(extended.model, Phi4Multimodal)
    digest = base_digest(open_checkpoint(extended.directory).tensors)
    save_pack(extended.model, "sensor", path, torch.float32, digest, {"sequences": 1}, extended.preprocessor)
    return path


def assistant_of(loaded: LoadedModel) -> Assistant:
    return Assistant(loaded, Processor.load(loaded.directory, loaded.config, loaded.preprocessor))


def ask(assistant: Assistant, *content: Any) -> tuple[int, ...]:
    stream = assistant.reply([Message("user", content)], sampling=Sampling(max_tokens=12))
    return stream.answer.token_ids


@pytest.fixture(scope="module")
def split(tiny_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint as `base/`, `vision.safetensors` and `speech.safetensors`."""
    directory = tmp_path_factory.mktemp("modality") / "split"
    convert(tiny_directory, directory, "packs")
    return directory


@pytest.fixture(scope="module")
def extended(split: Path) -> LoadedModel:
    """The base with a sensor that has an effect: an untrained adapter has none."""
    loaded = load_untrained(split / "base", split / "untrained.safetensors")
    generator = torch.Generator().manual_seed(3)
    for name, parameter in loaded.model.named_parameters():
        if ".lora_B.sensor." in name:
            parameter.normal_(0.0, 0.12, generator=generator)
    return loaded


@pytest.fixture(scope="module")
def packs(split: Path, extended: LoadedModel) -> list[Path]:
    """All three; the sensor's was trained on the base alone."""
    sensor = save_sensor(extended, split / "sensor.safetensors")
    return [sensor, split / "vision.safetensors", split / "speech.safetensors"]


@pytest.fixture(scope="module")
def assistant(split: Path, packs: list[Path]) -> Assistant:
    """The base with all three packs."""
    return Assistant.load(split / "base", device="cpu", packs=packs, modalities=[SENSOR])


def test_a_saved_modality_answers_as_before_beside_the_others(extended: LoadedModel, assistant: Assistant) -> None:
    before = ask(assistant_of(extended), Signal("sensor", SAMPLES), "What is it?")
    assert ask(assistant, Signal("sensor", SAMPLES), "What is it?") == before
    assert len(set(before)) > 4
    assert ask(assistant, Signal("sensor", SAMPLES[::-1].copy()), "What is it?") != before


def test_the_built_in_modalities_answer_as_without_it(tiny_directory: Path, assistant: Assistant) -> None:
    without = Assistant.load(tiny_directory, device="cpu")
    for content in (("Hi",), (Image(PICTURE), "Hi"), (Sound(SOUND), "Hi"), (Image(PICTURE), Sound(SOUND), "Hi")):
        assert ask(assistant, *content) == ask(without, *content)


def test_text_logits_have_the_bits_of_the_bare_base(split: Path, assistant: Assistant) -> None:
    bare = Assistant.load(split / "base", device="cpu")
    inputs = bare.processor.prepare([Message("user", "Some text to score.")])
    (alone,), (beside,) = score(bare.loaded.model, [inputs]), score(assistant.loaded.model, [inputs])
    assert torch.equal(alone, beside)


def test_a_pack_goes_onto_a_checkpoint_with_modalities_inside(
    tiny_directory: Path, packs: list[Path], assistant: Assistant
) -> None:
    joined = Assistant.load(tiny_directory, device="cpu", packs=packs[:1], modalities=[SENSOR])
    state = assistant.loaded.model.state_dict()
    assert state.keys() == joined.loaded.model.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in joined.loaded.model.state_dict().items())
    assert joined.loaded.config.added == assistant.loaded.config.added
    again = save_sensor(joined.loaded, packs[0].with_name("again.safetensors"))
    assert read_pack(again).config == read_pack(packs[0]).config


def test_an_answer_reports_the_modality(assistant: Assistant) -> None:
    parts = [{"type": "signal", "modality": "sensor", "signal": SAMPLES}, {"type": "text", "text": "Hi"}]
    messages = read_messages([{"role": "user", "content": parts}])
    answer = assistant.reply(messages, sampling=Sampling(max_tokens=1)).answer
    assert (answer.adapter, answer.media) == ("sensor", (("sensor", 5),))


@pytest.mark.parametrize("other", [Image(PICTURE), Sound(SOUND)])
def test_it_is_not_mixed_with_others(assistant: Assistant, other: Image | Sound) -> None:
    with pytest.raises(InputError, match=r"may hold vision; speech; speech with vision; sensor"):
        ask(assistant, other, Signal("sensor", SAMPLES), "Hi")


def test_a_model_without_it_refuses_its_media(tiny_directory: Path) -> None:
    with pytest.raises(InputError, match="a medium for sensor is given"):
        ask(Assistant.load(tiny_directory, device="cpu"), Signal("sensor", SAMPLES), "Hi")


def test_its_own_refusals_name_the_medium(assistant: Assistant) -> None:
    with pytest.raises(InputError, match=r"sensor 2: samples must be \[samples, 3\], not \(5, 2\)"):
        ask(assistant, Signal("sensor", SAMPLES), Signal("sensor", np.zeros((5, 2))))


def test_media_come_with_ids_and_prompts_too(assistant: Assistant) -> None:
    processor = assistant.processor
    signals = [Signal("sensor", SAMPLES), Signal("sensor", SAMPLES[:7])]
    by_ids = processor.prepare_ids([65, PLACEHOLDER, 66, PLACEHOLDER], signals=signals)
    by_prompt = processor.prepare_prompt("A<|endofprompt|>B<|endofprompt|>", signals=signals)
    assert by_ids.token_ids == by_prompt.token_ids == (65, *[PLACEHOLDER] * 5, 66, *[PLACEHOLDER] * 2)
    assert [medium.digest for medium in by_ids.media] == [medium.digest for medium in by_prompt.media]


def test_equal_media_have_equal_digests(assistant: Assistant) -> None:
    given = [SAMPLES, SAMPLES.copy(), SAMPLES[:16]]
    media = assistant.processor.prepare_ids([PLACEHOLDER] * 3, signals=[Signal("sensor", one) for one in given]).media
    assert media[0].digest == media[1].digest != media[2].digest


@pytest.mark.parametrize("piece", [1, 3, 7])
def test_cached_pieces_give_the_logits_of_the_whole(split: Path, packs: list[Path], piece: int) -> None:
    loaded = load_model(split / "base", torch.float32, packs=packs, modalities=[SENSOR])
    inputs = assistant_of(loaded).processor.prepare([Message("user", ("Look: ", Signal("sensor", SAMPLES), "What?"))])
    (whole,) = score(loaded.model, [inputs])
    cached = cached_logits(loaded.model, inputs, piece)
    assert float((cached - whole).abs().max()) <= 1e-5 * float(whole.abs().max())


def test_an_untrained_encoder_starts_as_its_constructor_leaves_it(split: Path, tmp_path: Path) -> None:
    state = load_untrained(split / "base", tmp_path / "new.safetensors").model.state_dict()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = SensorEncoder(SensorConfig(**CONFIG), 64).bfloat16().state_dict()
    assert all(torch.equal(state[f"sensor.{name}"], tensor) for name, tensor in built.items())
    assert not state["language.model.layers.0.mlp.down_proj.lora_B.sensor.weight"].any()


def test_a_pack_says_what_it_is(split: Path, packs: list[Path]) -> None:
    pack, report = read_pack(packs[0]), inspect_checkpoint(packs[0])
    assert pack.config["config"] == CONFIG
    assert (pack.placeholder_id, pack.trained_on) == (PLACEHOLDER, {"sequences": 1})
    assert pack.base_digest == read_pack(packs[1]).base_digest
    assert "model.embed_tokens_extend.sensor_embed.up.weight" in pack.tensors
    assert "model.layers.1.mlp.down_proj.lora_B.sensor.weight" in pack.tensors
    assert report.values.keys() == {"sensor_lora", "sensor_encoder"}
    assert report.values["sensor_encoder"] == 12 * 64 + 64 + 1
    assert (report.adapters["sensor"].rank, report.adapters["sensor"].scale) == (4, 2.0)


def test_a_pack_needs_its_modality_once(split: Path, packs: list[Path], tmp_path: Path) -> None:
    for given in ((), (replace(SENSOR, name="midi"),), (SENSOR, SENSOR)):
        with pytest.raises(CheckpointError, match=r"'sensor' comes from outside .* modalities=\[\.\.\.\]"):
            load_model(split / "base", packs=packs, modalities=given)
    with pytest.raises(CheckpointError, match=r"modalities=\[\.\.\.\]"):
        convert(split / "base", tmp_path / "joined", "released", packs=packs)


def test_a_configuration_that_it_cannot_use_is_named(split: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'sensor' cannot use its configuration \{'channels': 3\}"):
        load_untrained(split / "base", tmp_path / "new.safetensors", config={"channels": 3})


def test_other_weights_than_its_configuration_describes_are_refused(split: Path, packs: list[Path]) -> None:
    wider = replace(SENSOR, read_config=lambda raw: SensorConfig(raw["channels"], 2 * raw["window"]))
    with pytest.raises(CheckpointError, match=r"sensor_embed\.up\.weight \[64, 12\] instead of \[64, 24\]"):
        load_model(split / "base", packs=packs, modalities=[wider])


@pytest.mark.parametrize("layout", ["released", "converted"])
def test_directories_cannot_hold_it(assistant: Assistant, tmp_path: Path, layout: Layout) -> None:
    loaded = assistant.loaded
    with pytest.raises(CheckpointError, match="holds vision and speech only; save sensor as a pack"):
        save_model(loaded.model, loaded.config, tmp_path / "saved", layout, generation=loaded.generation)
    assert not (tmp_path / "saved").exists()


def test_two_modalities_cannot_share_a_placeholder(split: Path, tmp_path: Path) -> None:
    vision = split / "vision.safetensors"
    loaded = load_untrained(split / "base", tmp_path / "new.safetensors", token_id=257, packs=[vision])
    with pytest.raises(ConfigError, match=r"the same placeholder \(image 257, sensor 257\)"):
        assistant_of(loaded)


def test_buffers_that_are_not_stored_are_refused(split: Path, tmp_path: Path) -> None:
    class Forgetful(SensorEncoder):
        def __init__(self, config: SensorConfig, hidden_size: int) -> None:
            super().__init__(config, hidden_size)
            self.register_buffer("positions", torch.arange(9), persistent=False)

    with pytest.raises(ConfigError, match=r"the buffers sensor\.positions are not stored"):
        load_untrained(split / "base", tmp_path / "new.safetensors", replace(SENSOR, build_encoder=Forgetful))


@pytest.mark.parametrize("name", ["", "Sensor", "a.b", "vision", "image", "model", "keys", "train"])
def test_names_that_mean_something_else_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be named"):
        replace(SENSOR, name=name)


def test_a_name_that_the_model_uses_is_refused(split: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be named 'encode'"):
        load_untrained(split / "base", tmp_path / "new.safetensors", replace(SENSOR, name="encode"))


def test_data_whose_equality_nobody_knows_is_refused(split: Path, tmp_path: Path) -> None:
    opaque = replace(SENSOR, prepare=lambda source, config: object(), count_tokens=lambda data, config: 1)
    assistant = assistant_of(load_untrained(split / "base", tmp_path / "new.safetensors", opaque))
    with pytest.raises(ConfigError, match="tensor or a dataclass of tensors"):
        ask(assistant, Signal("sensor", SAMPLES), "Hi")


def test_a_wrong_count_of_tokens_is_refused(split: Path, tmp_path: Path) -> None:
    def one_too_many(samples: Samples, config: SensorConfig) -> int:
        return len(samples.values) // config.window + 1

    counting = replace(SENSOR, count_tokens=one_too_many)
    assistant = assistant_of(load_untrained(split / "base", tmp_path / "new.safetensors", counting))
    with pytest.raises(InputError, match="a sensor input has 5 tokens, but 6 placeholders"):
        ask(assistant, Signal("sensor", SAMPLES), "Hi")


def test_a_name_that_every_module_has_is_refused() -> None:
    with pytest.raises(ConfigError, match="meaning of its own"):
        Modality("training", dict, nn.Identity, lambda *_: None, lambda *_: 0)  # type: ignore[arg-type, return-value]
