"""Direct preference optimisation by its formula, on the language model of the tiny preset."""

import math
from collections.abc import Sequence

import pytest
import torch

from data.samples import record
from phi4.data.example import Example, encode_preference
from phi4.engine.whole_pass import score
from phi4.model.decoder import Phi4Mini
from phi4.processing.messages import Message
from phi4.processing.processor import Processor
from phi4.train.objectives.preference import PreferenceLoss
from train.conftest import Setting

BETA = 0.3
# The second has an earlier answer, which is in both of its endings.
QUESTIONS = (
    (Message("user", "Which way?"), Message("assistant", "North.")),
    (Message("user", "Hi."), Message("assistant", "Yes?"), Message("user", "Go."), Message("assistant", "South.")),
)


@pytest.fixture
def model(setting: Setting) -> Phi4Mini:
    loaded = setting.load(packs=(), dtype=torch.float32)
    assert isinstance(loaded.model, Phi4Mini)
    return loaded.model.requires_grad_(True)


@pytest.fixture
def pairs(setting: Setting) -> list[Example]:
    loaded = setting.load(packs=())
    processor = Processor.load(loaded.directory, loaded.config, loaded.preprocessor)
    records = [record(str(n), *messages, rejected="No idea at all.") for n, messages in enumerate(QUESTIONS)]
    return [encode_preference(item, processor, loaded.generation.eos_token_ids) for item in records]


def moved(model: Phi4Mini, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)


def answer_log_probability(model: Phi4Mini, example: Example) -> torch.Tensor:
    """By the scores of the whole conversation."""
    (logits,) = score(model, [example.inputs])
    own = torch.log_softmax(logits[list(example.output_rows)].float(), dim=-1)
    return own[torch.arange(len(example.targets)), list(example.targets)].sum()


def margins(model: Phi4Mini, reference: Phi4Mini, pairs: Sequence[Example]) -> list[float]:
    """The formula, an answer at a time."""
    found = []
    for pair in pairs:
        assert pair.rejected is not None
        gains = [answer_log_probability(model, e) - answer_log_probability(reference, e) for e in (pair, pair.rejected)]
        found.append(BETA * float(gains[0] - gains[1]))
    return found


def test_before_anything_is_learnt_the_loss_is_log_two(model: Phi4Mini, pairs: list[Example]) -> None:
    loss = PreferenceLoss(model, BETA, recompute=False)(model, pairs)
    assert float(loss.total.detach()) == pytest.approx(2 * math.log(2), abs=1e-6)
    assert loss.figures[0] == pytest.approx(0.0, abs=1e-5)


def test_loss_accuracy_and_margin_are_those_of_the_formula(model: Phi4Mini, pairs: list[Example]) -> None:
    objective = PreferenceLoss(model, BETA, recompute=False)
    moved(model, seed=1)
    loss = objective(model, pairs)
    expected = margins(model, objective.reference, pairs)
    assert objective.count(pairs) == 2
    assert max(map(abs, expected)) > 0.01
    assert float(loss.total.detach()) == pytest.approx(
        sum(math.log1p(math.exp(-margin)) for margin in expected), rel=1e-4
    )
    assert loss.correct == sum(margin > 0 for margin in expected)
    assert loss.figures[0] == pytest.approx(sum(expected), rel=1e-3)


@pytest.mark.parametrize("recompute", [False, True])
def test_the_gradient_is_the_slope_of_the_loss(model: Phi4Mini, pairs: list[Example], recompute: bool) -> None:
    """Along random directions in fp64, the tied embedding included."""
    model.double()
    objective = PreferenceLoss(model, BETA, recompute)
    moved(model, seed=2)
    objective(model, pairs).total.backward()
    generator = torch.Generator().manual_seed(3)
    for parameter in (model.model.embed_tokens.weight, model.model.layers[0].self_attn.qkv_proj.weight):
        assert isinstance(parameter, torch.nn.Parameter)
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        losses = []
        for step in (1e-3, -1e-3):
            with torch.no_grad():
                parameter += step * direction
                losses.append(float(objective(model, pairs).total.detach()))
                parameter -= step * direction
        assert parameter.grad is not None
        slope = float((parameter.grad * direction).sum())
        assert (losses[0] - losses[1]) / 2e-3 == pytest.approx(slope, rel=2e-3)


def test_the_copy_never_learns(model: Phi4Mini, pairs: list[Example]) -> None:
    objective = PreferenceLoss(model, BETA, recompute=False)
    objective(model, pairs).total.backward()
    assert not [name for name, parameter in objective.named_parameters() if parameter.requires_grad]
    assert all(parameter.grad is None for parameter in objective.parameters())


def test_only_what_trains_is_copied(model: Phi4Mini) -> None:
    trained = model.model.layers[0].self_attn.qkv_proj.weight
    assert isinstance(trained, torch.nn.Parameter)
    model.requires_grad_(False)
    trained.requires_grad_(True)
    reference = dict(PreferenceLoss(model, BETA, recompute=False).reference.named_parameters())
    copied = {name for name, parameter in model.named_parameters() if reference[name] is not parameter}
    assert copied == {"model.layers.0.self_attn.qkv_proj.weight"}
    assert trained.requires_grad
