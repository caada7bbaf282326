"""Rounding for a text: what the linears make of that text's inputs is nearer to what it was."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from phi4.checkpoint.feedback import round_with_feedback
from phi4.checkpoint.moments import PASS_TOKENS, layer_moments, split_windows
from phi4.checkpoint.quantise import SCHEMES, quantise
from phi4.checkpoint.rounding import round_weight
from phi4.checkpoint.weights import LoadedModel, load_model
from phi4.engine.whole_pass import score
from phi4.errors import CheckpointError
from phi4.inputs import ModelInputs

WINDOWS = [[1 + (7 * place + seed) % 50 for place in range(40)] for seed in range(8)]


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_errors_are_made_up_for_on_inputs_that_go_together() -> None:
    weight, inputs = random(48, 96, seed=0), random(500, 8, seed=1) @ random(8, 96, seed=2)
    inputs += 0.1 * random(500, 96, seed=3)
    errors = [
        (inputs @ (packed.rows(torch.arange(48)) - weight).T).square().mean()
        for packed in (round_with_feedback(weight, inputs.T @ inputs), round_weight(weight, 4))
    ]
    assert errors[0] < 0.3 * errors[1]


def test_inputs_that_a_text_never_gives_are_rounded_as_well() -> None:
    weight = random(16, 64, seed=0)
    packed = round_with_feedback(weight, torch.zeros(64, 64))
    assert (packed.rows(torch.arange(16)) - weight).norm() < 0.1 * weight.norm()


def test_moments_are_those_of_what_each_linear_is_given(tiny: LoadedModel) -> None:
    language = tiny.model.language
    seen: list[torch.Tensor] = []
    down = language.model.layers[-1].mlp.down_proj
    hook = down.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].float()))
    for window in WINDOWS:
        score(language, [ModelInputs(tuple(window), ())])
    hook.remove()
    expected = sum(inputs.T @ inputs for inputs in seen)
    *_, last = layer_moments(language, WINDOWS)
    assert last.keys() == {"self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"}
    torch.testing.assert_close(last["mlp.down_proj"], expected, rtol=1e-3, atol=1e-3)


def test_windows_pass_in_their_order_and_few_at_a_time() -> None:
    windows = [[0] * (PASS_TOKENS // 2)] * 5
    assert [len(some) for some in split_windows(windows)] == [2, 2, 1]
    assert list(split_windows([])) == []


def test_a_model_rounded_for_a_text_reads_that_text_more_like_its_source(tiny_directory: Path, tmp_path: Path) -> None:
    quantise(tiny_directory, tmp_path / "plain", SCHEMES["4bit"])
    quantise(tiny_directory, tmp_path / "for-text", SCHEMES["4bit"], windows=WINDOWS)
    inputs = [ModelInputs(tuple(window), ()) for window in WINDOWS]
    source, plain, fitted = (
        torch.cat(score(load_model(path, torch.float32).model, inputs))
        for path in (tiny_directory, tmp_path / "plain", tmp_path / "for-text")
    )
    assert (fitted - source).square().mean() < 0.9 * (plain - source).square().mean()


def test_a_text_whose_inputs_are_no_numbers_is_refused(
    model_directory: Path, edit_tensors: Callable[..., None], tmp_path: Path
) -> None:
    norm = "model.layers.0.input_layernorm.weight"
    edit_tensors(model_directory / "model.safetensors", lambda tensors: tensors[norm][3].fill_(torch.nan))
    with pytest.raises(CheckpointError, match="inputs that are no numbers"):
        quantise(model_directory, tmp_path / "out", SCHEMES["4bit"], windows=WINDOWS)


def test_who_asks_for_moments_keeps_its_own_mode(tiny: LoadedModel) -> None:
    moments = layer_moments(tiny.model.language, WINDOWS)
    next(moments)
    assert not torch.is_inference_mode_enabled()
