"""A frozen language model whose products have 8 bits while adapters and encoders train on it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from phi4.checkpoint.digest import base_digest
from phi4.checkpoint.layouts import open_checkpoint
from phi4.checkpoint.packs import read_pack
from phi4.cli import main
from phi4.data.example import Example
from phi4.data.record import Record
from phi4.errors import ConfigError, TrainingError
from phi4.kernels.instructions import NATIVE
from phi4.model.lora import AdaptedLinear
from phi4.model.multimodal import Phi4Multimodal
from phi4.train.objectives.answers import AnswerLoss
from phi4.train.parts import select_trained
from phi4.train.rounded_base import round_base, round_product
from train.conftest import Setting
from train.stages import align
from train.toys import colours

Encode = Callable[[Record], Example]

with_kernels = pytest.mark.skipif(NATIVE is None, reason="no kernels were compiled here")


def load(setting: Setting, *parts: str) -> tuple[Phi4Multimodal, dict[str, torch.nn.Parameter]]:
    """A model and what of it trains."""
    model = setting.load(dtype=torch.float32).model
    assert isinstance(model, Phi4Multimodal)
    return model, dict(select_trained(model, parts))


def gradients(
    model: Phi4Multimodal, trained: dict[str, torch.nn.Parameter], examples: list[Example]
) -> dict[str, torch.Tensor]:
    with torch.enable_grad():
        AnswerLoss(recompute=False)(model, examples).total.backward()
    found = {name: parameter.grad for name, parameter in trained.items() if parameter.grad is not None}
    for parameter in trained.values():
        parameter.grad = None
    return found


@with_kernels
def test_the_gradients_of_what_trains_are_nearly_those_of_exact_products(calm: Setting, encode: Encode) -> None:
    """Of the adapter through every linear, and of the projector below all of them."""
    model, trained = load(calm, "vision.adapter", "vision.projector")
    examples = [encode(record) for record in colours(6, "train")]
    exact = gradients(model, trained, examples)
    round_base(model)
    rounded = gradients(model, trained, examples)
    assert rounded.keys() == exact.keys()
    assert not all(torch.equal(rounded[name], exact[name]) for name in exact)
    for name, gradient in exact.items():
        assert (rounded[name] - gradient).norm() < 0.1 * gradient.norm(), name


@with_kernels
def test_every_linear_of_the_decoder_is_rounded_and_keeps_its_weight(setting: Setting) -> None:
    model, _ = load(setting, "vision.adapter")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    round_base(model)
    linears = [part for part in model.modules() if isinstance(part, AdaptedLinear)]
    assert len(linears) == 4 * model.decoder_config.num_hidden_layers
    assert all(linear.rounded is not None for linear in linears)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@with_kernels
def test_what_keeps_no_gradients_has_the_exact_bits(setting: Setting, encode: Encode) -> None:
    model, _ = load(setting, "vision.adapter")
    example = encode(colours(1, "train")[0])
    with torch.no_grad():
        exact = AnswerLoss(recompute=False)(model.eval(), [example]).total
        round_base(model)
        assert torch.equal(AnswerLoss(recompute=False)(model, [example]).total, exact)


@pytest.mark.parametrize("rows", [1, 7])
def test_a_product_and_its_gradient_are_near_the_exact_ones(rows: int) -> None:
    torch.manual_seed(0)
    weight, hidden, upstream = torch.randn(96, 160), torch.randn(rows, 160), torch.randn(rows, 96)
    with torch.inference_mode(False), torch.enable_grad():
        leaf = hidden.clone().requires_grad_(True)
        product = round_product(weight)(leaf)
        product.backward(upstream.clone())
    assert leaf.grad is not None
    for found, exact in ((product.detach(), hidden @ weight.T), (leaf.grad, upstream @ weight)):
        assert (found - exact).norm() < 0.02 * exact.norm()


@with_kernels
def test_a_stage_on_a_rounded_base_writes_a_pack_for_the_exact_one(setting: Setting, tmp_path: Path) -> None:
    result = setting.train(align(), tmp_path / "run", rounded_base=True)
    exact = setting.train(align(), tmp_path / "exact")
    pack = read_pack(result.packs["vision"])
    assert pack.base_digest == base_digest(open_checkpoint(setting.base).tensors)
    assert pack.trained_on["stages"][-1]["precision of products"] == "8 bits"
    assert result.packs["vision"].read_bytes() != exact.packs["vision"].read_bytes()


@with_kernels
def test_a_run_is_resumed_with_the_precision_that_it_began_with(setting: Setting, tmp_path: Path) -> None:
    stage = align()
    setting.train(stage, tmp_path / "run", rounded_base=True)
    with pytest.raises(TrainingError, match="another precision of products"):
        setting.train(stage, tmp_path / "run", resume=True)
    setting.train(stage, tmp_path / "run", resume=True, rounded_base=True)


@with_kernels
def test_the_command_takes_the_option(setting: Setting, tmp_path: Path) -> None:
    arguments = [*setting.arguments("align", tmp_path / "run"), "--steps=1", "--device=cpu", "--rounded-base"]
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert not exit_info.value.code
    assert read_pack(tmp_path / "run" / "vision.safetensors").trained_on["stages"][-1]["steps"] == 1


@with_kernels
def test_a_language_model_that_trains_is_not_rounded(setting: Setting, tmp_path: Path) -> None:
    model, _ = load(setting, "vision.adapter")
    model.language.model.layers[0].mlp.down_proj.weight.requires_grad_(True)
    with pytest.raises(ConfigError, match="trains in this stage"):
        round_base(model)


def test_a_machine_without_kernels_is_told(setting: Setting, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("phi4.model.rounded_product.NATIVE", None)
    with pytest.raises(ConfigError, match="leave out --rounded-base"):
        setting.train(replace(align(), steps=1), tmp_path / "run", rounded_base=True)
