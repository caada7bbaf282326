"""Small random checkpoints that transformers itself wrote, with the released LongRoPE factors."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from transformers import Phi3Config, Phi3ForCausalLM, Phi4MultimodalForCausalLM
from transformers.utils import logging

from parity.reference import AUDIO_TOKEN, IMAGE_TOKEN, Pair, decoder_sizes, native_config, randomise
from phi4.checkpoint.peft_folder import TARGET_PATTERN
from phi4.checkpoint.weights import load_model
from phi4.model.decoder import Phi4Mini
from phi4.model.multimodal import Phi4Multimodal


@pytest.fixture(scope="session", autouse=True)
def quiet_transformers() -> Iterator[None]:
    """transformers logs advice about rope parameters that does not concern these tests."""
    logging.set_verbosity_error()
    yield
    logging.set_verbosity_warning()


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Phi3ForCausalLM and Phi4Mini."""
    directory = tmp_path_factory.mktemp("phi3")
    theirs = Phi3ForCausalLM(Phi3Config(**decoder_sizes())).eval()
    randomise(theirs)
    theirs.save_pretrained(directory)
    ours = load_model(directory).model
    assert isinstance(ours, Phi4Mini)
    return Pair(theirs, ours)


@pytest.fixture(scope="session")
def multimodal_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A native multimodal checkpoint with both adapters as PEFT folders, all written by transformers and PEFT."""
    directory = tmp_path_factory.mktemp("phi4_multimodal")
    model = Phi4MultimodalForCausalLM(native_config()).eval()
    randomise(model)
    # Score 0 for both placeholders: the native class looks for media again when one of them is generated.
    model.get_input_embeddings().weight.data[[IMAGE_TOKEN, AUDIO_TOKEN]] = 0.0
    model.save_pretrained(directory)
    for name, rank in (("vision", 4), ("speech", 8)):
        lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=TARGET_PATTERN)
        model.add_adapter(lora, adapter_name=name)
        model.set_adapter(name)
        for key, parameter in model.named_parameters():
            if f".{name}." in key and "lora_" in key:
                parameter.data.normal_(std=0.1, generator=torch.Generator().manual_seed(rank))
        model.save_pretrained(directory / f"{name}-lora")
    return directory


@pytest.fixture(scope="session")
def multimodal(multimodal_directory: Path) -> Pair:
    """Phi4MultimodalForCausalLM with both adapters, and Phi4Multimodal."""
    theirs = Phi4MultimodalForCausalLM.from_pretrained(multimodal_directory, attn_implementation="eager").eval()
    for name in ("vision", "speech"):
        theirs.load_adapter(multimodal_directory / f"{name}-lora", adapter_name=name)
    ours = load_model(multimodal_directory).model
    assert isinstance(ours, Phi4Multimodal)
    return Pair(theirs, ours)
