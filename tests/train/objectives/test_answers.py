"""The loss on answers is what a server would say: same modules, same weights, same bits."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from data.samples import media_record
from data.samples import record as text_record
from phi4.checkpoint.layouts import open_checkpoint
from phi4.checkpoint.usual_dtype import usual_dtype
from phi4.data.example import Example
from phi4.data.record import Record
from phi4.data.shards import ShardedRecords
from phi4.engine.whole_pass import score
from phi4.model.multimodal import Phi4Multimodal
from phi4.train.objectives.answers import AnswerLoss
from train.conftest import Setting, read_metrics
from train.toys import colours, tones

Encode = Callable[[Record], Example]

RECORDS = {
    "text": text_record("text"),
    "vision": colours(1, "train")[0],
    "speech": tones(1, "train")[0],
    "vision and speech": media_record(0),
}


@pytest.fixture(scope="module")
def model(setting: Setting) -> Phi4Multimodal:
    loaded = setting.load(dtype=torch.float32)
    assert isinstance(loaded.model, Phi4Multimodal)
    return loaded.model


def served_loss(model: Phi4Multimodal, example: Example) -> torch.Tensor:
    """The loss by the scores that a server computes for the whole conversation."""
    (logits,) = score(model, [example.inputs])
    own = torch.log_softmax(logits[list(example.output_rows)].float(), dim=-1)
    return functional.nll_loss(own, torch.tensor(example.targets), reduction="sum")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("mode", RECORDS)
def test_the_loss_of_one_example_has_the_bits_of_the_servers_scores(
    setting: Setting, encode: Encode, mode: str, dtype: torch.dtype
) -> None:
    model = setting.load(dtype=dtype).model
    assert isinstance(model, Phi4Multimodal)
    example = encode(RECORDS[mode])
    with torch.no_grad():  # products that keep gradients are the stock library's, which round in another order
        trained = AnswerLoss(recompute=False)(model, [example]).total
    assert torch.equal(trained, served_loss(model, example))


def test_what_was_trained_scores_the_same_bits_when_it_is_loaded(
    setting: Setting, finished: Path, encode: Encode
) -> None:
    """The last validation ran on the weights in the trainer's memory, one example for each data set."""
    dtype = usual_dtype(open_checkpoint(setting.base), torch.device("cpu"))
    served = setting.load([finished / "vision.safetensors", finished / "speech.safetensors"], dtype=dtype).model
    assert isinstance(served, Phi4Multimodal)
    reported = read_metrics(finished)[-1]
    for name in ("colours", "tones"):
        example = encode(ShardedRecords.open(setting.data / name).select("valid").sample(1)[0])
        assert reported[f"valid/{name}/loss"] == float(served_loss(served, example)) / len(example.targets)


def test_examples_of_one_row_do_not_see_each_other(model: Phi4Multimodal, encode: Encode) -> None:
    examples = [encode(record) for record in RECORDS.values()]
    objective = AnswerLoss(recompute=False)
    together = objective(model, examples)
    alone = [objective(model, [example]) for example in examples]
    torch.testing.assert_close(together.total, torch.stack([loss.total for loss in alone]).sum())
    assert together.correct == sum(loss.correct for loss in alone)
    assert objective.count(examples) == sum(len(example.targets) for example in examples)


def test_recomputing_layers_changes_no_bit(setting: Setting, encode: Encode) -> None:
    """Dropout included: the second run of a layer draws the same masks."""
    results = []
    for recompute in (False, True):
        model = setting.load().model
        assert isinstance(model, Phi4Multimodal)
        model.requires_grad_(True).train()
        runs: list[int] = []
        model.language.model.layers[0].register_forward_pre_hook(lambda *_, runs=runs: runs.append(1))
        torch.manual_seed(5)
        loss = AnswerLoss(recompute)(model, [encode(record) for record in RECORDS.values()])
        loss.total.backward()
        assert len(runs) == (2 if recompute else 1)
        results.append((loss.total, {name: parameter.grad for name, parameter in model.named_parameters()}))
    (total, gradients), (total_again, gradients_again) = results
    assert torch.equal(total, total_again)
    for name, gradient in gradients.items():
        again = gradients_again[name]
        assert (gradient is None) == (again is None), name
        assert gradient is None or again is None or torch.equal(gradient, again), name


def test_dropout_acts_in_training_alone(setting: Setting, encode: Encode) -> None:
    model = setting.load().model
    assert isinstance(model, Phi4Multimodal)
    example = encode(RECORDS["speech"])
    objective = AnswerLoss(recompute=False)
    calm = {float(objective(model, [example]).total.detach()) for _ in range(3)}
    model.train()
    noisy = {float(objective(model, [example]).total.detach()) for _ in range(3)}
    assert (len(calm), len(noisy)) == (1, 3)
