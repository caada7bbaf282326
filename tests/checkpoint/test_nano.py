"""The embedded default, fetched once into the cache."""

import functools
import json
from pathlib import Path

import pytest
import torch

from phi4.checkpoint.digest import base_digest
from phi4.checkpoint.hub import resolve
from phi4.checkpoint.initialise import initialise
from phi4.checkpoint.layouts import open_checkpoint
from phi4.checkpoint.nano import BASE_DIGEST, convert_nano
from phi4.checkpoint.presets import load_preset
from phi4.checkpoint.tokenizer_files import template
from phi4.checkpoint.weights import load_model
from phi4.errors import CheckpointError
from phi4.json_file import read_json
from phi4.model.step import Segment
from phi4.processing.template import ChatTemplate


@functools.cache
def nano() -> Path:
    return resolve("nano")


def test_nano_is_what_was_pinned() -> None:
    checkpoint = open_checkpoint(nano())
    assert base_digest(checkpoint.tensors) == BASE_DIGEST
    assert sum(tensor.num_values for tensor in checkpoint.tensors.values()) == 134_515_008
    assert checkpoint.config.decoder == load_preset("nano").config.decoder
    assert checkpoint.generation.eos_token_ids == (2,)


def test_nano_carries_its_licence_and_no_scratch_files() -> None:
    names = {path.name for path in nano().iterdir()}
    assert "Apache License" in (nano() / "LICENSE").read_text()
    assert "SmolLM2-135M-Instruct" in (nano() / "NOTICE").read_text()
    assert not any(name.endswith((".gguf", ".whl")) for name in names)


def test_nano_knows_the_capital_of_france() -> None:
    """The ids are those of "What is the capital of France?" in the chat template."""
    prompt = "1 4093 198 1780 314 260 3575 282 4649 47 2 198 1 520 9531 198"
    ids = torch.tensor([int(token) for token in prompt.split()])
    model = load_model(nano(), dtype=torch.float32).model
    with torch.no_grad():
        logits = model.logits(model(model.embed(ids), model.step([Segment(length=len(ids))])))
    assert read_json(nano() / "tokenizer.json")["model"]["vocab"]["The"] == int(logits[-1].argmax())


# The template inside the GGUF file.
CHAT_ML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@pytest.mark.parametrize("roles", [["user"], ["system", "user"], ["user", "assistant", "tool", "user"]])
@pytest.mark.parametrize("add_generation_prompt", [True, False])
def test_without_tools_the_template_is_smollms_own(roles: list[str], add_generation_prompt: bool) -> None:
    messages = [{"role": role, "content": f" {role}\n says"} for role in roles]
    ours, theirs = ChatTemplate(template("nano"), {}), ChatTemplate(CHAT_ML, {})
    expected = theirs.render(messages, add_generation_prompt=add_generation_prompt)
    assert ours.render(messages, add_generation_prompt=add_generation_prompt) == expected


def test_tools_are_offered_as_json_in_the_system_message() -> None:
    functions = [{"name": "weather", "description": "häufig", "parameters": {"place": {"type": "str"}}}, {"name": "x"}]
    tools = [{"type": "function", "function": function} for function in functions]
    prompt = ChatTemplate(template("nano"), {}).render([{"role": "user", "content": "U"}], tools=tools)
    system, user = prompt.split("<|im_end|>\n", 1)
    assert system.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert json.dumps(functions, ensure_ascii=False) in system
    assert "functools[" in system
    assert user == "<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"


def test_initialising_nano_takes_its_tokenizer(tmp_path: Path) -> None:
    initialise("nano", tmp_path / "random")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "random" / name).read_bytes() == (nano() / name).read_bytes()
    assert read_json(tmp_path / "random/config.json") == dict(load_preset("nano").config.raw)
    assert base_digest(open_checkpoint(tmp_path / "random").tensors) != BASE_DIGEST


def test_another_file_is_not_taken_for_nano(tmp_path: Path) -> None:
    (tmp_path / "other.gguf").write_bytes(b"GGUF")
    with pytest.raises(CheckpointError, match="SHA-256"):
        convert_nano(tmp_path / "other.gguf", tmp_path)
