"""The converted layout against transformers and PEFT, both ways."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, Phi3Config, Phi3ForCausalLM, Phi4MultimodalConfig, Phi4MultimodalForCausalLM

from phi4.checkpoint.config_json import read_config
from phi4.checkpoint.convert import convert
from phi4.checkpoint.converted import to_native, to_released
from phi4.checkpoint.directories import write_json
from phi4.checkpoint.layouts import open_checkpoint
from phi4.checkpoint.peft_folder import TARGET_PATTERN, read_peft_folder
from phi4.checkpoint.presets import load_preset
from phi4.checkpoint.weights import load_model
from phi4.config import AdapterConfig
from phi4.errors import CheckpointError, ConfigError
from phi4.model.step import Segment

# PEFT asks transformers by a name that transformers is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

LONG, SHORT = [1.0, 1.5, 2.5, 4.0, 8.0, 16.0], [1.0, 1.0, 1.1, 1.1, 1.2, 1.2]
ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "partial_rotary_factor": 0.75,
    "long_factor": LONG,
    "short_factor": SHORT,
    "original_max_position_embeddings": 4096,
}
DECODER = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 131072,
    "original_max_position_embeddings": 4096,
    "rope_parameters": ROPE,
    "bos_token_id": 1,
    "eos_token_id": [2, 3],
    "pad_token_id": 1,
    "tie_word_embeddings": True,
}


@pytest.fixture(scope="module")
def native_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What transformers and PEFT write for a small model with random adapters."""
    torch.manual_seed(0)
    config = Phi4MultimodalConfig(
        **DECODER,
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 40,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "image_size": 56,
            "crop_size": 56,
            "image_token_id": 10,
        },
        audio_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_blocks": 1,
            "num_attention_heads": 2,
            "ext_pw_out_channel": 32,
            "depthwise_separable_out_channel": 32,
            "nemo_conv_channels": 8,
            "bias_max_distance": 50,
            "audio_token_id": 11,
        },
    )
    directory = tmp_path_factory.mktemp("native")
    model = Phi4MultimodalForCausalLM(config)
    model.save_pretrained(directory)
    for name, rank in (("vision", 4), ("speech", 6)):
        adapter = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=TARGET_PATTERN, init_lora_weights=False)
        wrapped = get_peft_model(model, adapter)
        wrapped.save_pretrained(directory / f"{name}-lora")
        model = wrapped.unload()
    return directory


def our_logits(directory: Path, adapter: str | None) -> torch.Tensor:
    model = load_model(directory, dtype=torch.float32).model
    ids = torch.arange(20, 40)
    step = model.step([Segment(length=len(ids), rotary="short", adapter=adapter)])
    with torch.no_grad():
        return model.logits(model(model.embed(ids), step))


def native_logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(input_ids=torch.arange(20, 40)[None]).logits[0]
    return logits


def close(left: torch.Tensor, right: torch.Tensor) -> bool:
    return bool((left - right).abs().max() <= 2e-5 * right.abs().max())


def test_we_load_what_transformers_and_peft_write(native_directory: Path) -> None:
    checkpoint = open_checkpoint(native_directory)
    assert checkpoint.layout == "converted"
    assert checkpoint.config.adapters == {"vision": AdapterConfig(4, 8), "speech": AdapterConfig(6, 12)}
    assert checkpoint.config.speech is not None
    assert checkpoint.config.speech.bias_max_distance == 50
    assert checkpoint.generation.eos_token_ids == (2, 3)
    base = Phi4MultimodalForCausalLM.from_pretrained(native_directory)
    assert close(our_logits(native_directory, None), native_logits(base))
    for name in ("vision", "speech"):
        adapted = PeftModel.from_pretrained(
            Phi4MultimodalForCausalLM.from_pretrained(native_directory), native_directory / f"{name}-lora"
        )
        assert close(our_logits(native_directory, name), native_logits(adapted))


def test_transformers_and_peft_load_what_we_write(native_directory: Path, tmp_path: Path) -> None:
    convert(native_directory, tmp_path / "released", "released")
    convert(tmp_path / "released", tmp_path / "converted", "converted")
    theirs, loading = Phi4MultimodalForCausalLM.from_pretrained(tmp_path / "converted", output_loading_info=True)
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    original = Phi4MultimodalForCausalLM.from_pretrained(native_directory)
    assert all(torch.equal(theirs.state_dict()[name], tensor) for name, tensor in original.state_dict().items())
    for part in ("vision_config", "audio_config"):
        assert getattr(theirs.config, part).to_dict() == getattr(original.config, part).to_dict()
    assert theirs.config.rope_parameters == original.config.rope_parameters
    for name in ("vision", "speech"):
        adapted = PeftModel.from_pretrained(theirs, tmp_path / "converted" / f"{name}-lora")
        assert close(our_logits(native_directory, name), native_logits(adapted))
        theirs = adapted.unload()


def test_transformers_loads_the_released_mini_layout(packed_directory: Path) -> None:
    model, loading = Phi3ForCausalLM.from_pretrained(
        packed_directory / "base", dtype=torch.float32, output_loading_info=True
    )
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert close(our_logits(packed_directory / "base", None), native_logits(model))


def test_we_load_the_mini_layout_that_transformers_writes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Phi3ForCausalLM(Phi3Config(**DECODER))
    model.save_pretrained(tmp_path)
    assert close(our_logits(tmp_path, None), native_logits(model))


def test_released_and_native_configurations_mean_the_same() -> None:
    config = load_preset("multimodal").config
    native = to_native(config, (200020, 199999))
    again = read_config(to_released(native, config.adapters))
    assert (again.decoder, again.vision, again.speech) == (config.decoder, config.vision, config.speech)
    assert again.adapters == config.adapters
    assert native["eos_token_id"] == [200020, 199999]
    assert native["vision_config"]["image_token_id"] == 200010


def test_the_native_configuration_is_valid_for_transformers(converted_directory: Path) -> None:
    config = AutoConfig.from_pretrained(converted_directory)
    assert isinstance(config, Phi4MultimodalConfig)
    assert config.rope_parameters["long_factor"] == LONG


def test_absent_keys_take_the_native_defaults_not_the_releases() -> None:
    rope = {**ROPE, "long_factor": [1.0] * 36, "short_factor": [1.0] * 36}
    config = read_config(to_released({"rope_parameters": rope}, load_preset("multimodal").config.adapters))
    assert config.decoder.num_attention_heads == 32
    assert not config.decoder.tie_word_embeddings
    assert config.speech is not None
    assert config.speech.bias_max_distance == 1000


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("vision_config", {"hidden_act": "relu"}),
        ("vision_config", {"crop_size": 224}),
        ("audio_config", {"bias_symmetric": True}),
        ("audio_config", {"nemo_activation": "gelu"}),
    ],
)
def test_native_variants_that_the_release_lacks_are_refused(part: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"{part}\..*only .* is supported"):
        to_released({part: changes}, {})


def test_without_peft_folders_there_are_no_adapters(native_directory: Path, tmp_path: Path) -> None:
    Phi4MultimodalForCausalLM.from_pretrained(native_directory).save_pretrained(tmp_path / "bare")
    loaded = load_model(tmp_path / "bare")
    assert loaded.config.adapters == {}
    with pytest.raises(CheckpointError, match="lacks one"):
        convert(tmp_path / "bare", tmp_path / "released", "released")


@pytest.mark.parametrize(
    ("key", "value"),
    [("use_dora", True), ("use_rslora", True), ("bias", "all"), ("peft_type", "LOHA"), ("rank_pattern", {"o_proj": 2})],
)
def test_other_kinds_of_adapters_are_refused(
    converted_directory: Path, tmp_path: Path, edit_json: Any, key: str, value: Any
) -> None:
    folder = Path(shutil.copytree(converted_directory / "vision-lora", tmp_path / "adapter"))
    edit_json(folder / "adapter_config.json", {key: value})
    with pytest.raises(ConfigError, match=key):
        read_peft_folder(folder)


def test_a_pickled_adapter_is_never_opened(converted_directory: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(converted_directory / "vision-lora", tmp_path / "adapter"))
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="pickled weights only"):
        read_peft_folder(folder)
    (folder / "adapter_model.bin").unlink()
    with pytest.raises(CheckpointError, match="does not exist"):
        read_peft_folder(folder)


def test_an_adapter_without_its_numbers_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4}')
    with pytest.raises(ConfigError, match=r"adapter_config\.json: there is no 'lora_alpha'"):
        read_peft_folder(tmp_path)


def test_rope_keys_that_change_the_angles_are_refused_not_dropped() -> None:
    config = load_preset("tiny").config
    native = to_native(config, [1])
    native["rope_parameters"]["attention_factor"] = 1.5
    with pytest.raises(ConfigError, match="attention_factor"):
        read_config(to_released(native, config.adapters))


@pytest.mark.parametrize(
    ("key", "value"), [("r", 0), ("r", "8"), ("r", None), ("r", 2.5), ("lora_alpha", "8"), ("lora_dropout", None)]
)
def test_adapter_numbers_that_are_none_are_named(tmp_path: Path, key: str, value: object) -> None:
    write_json(tmp_path / "adapter_config.json", {"r": 8, "lora_alpha": 16, key: value})
    with pytest.raises(ConfigError, match=rf"adapter_config\.json: {key} must be"):
        read_peft_folder(tmp_path)
