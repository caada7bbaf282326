from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from data.samples import record as text_record
from phi4.data.example import Example
from phi4.data.record import Record
from phi4.errors import DataError
from phi4.model.multimodal import Phi4Multimodal
from phi4.train.masters import Masters
from phi4.train.objectives.captions import CaptionLoss
from phi4.train.parts import select_trained
from train.conftest import Setting
from train.stages import contrast
from train.toys import COLOURS, colours

Encode = Callable[[Record], Example]


@pytest.fixture
def model(setting: Setting) -> Phi4Multimodal:
    loaded = setting.load(dtype=torch.float32)
    assert isinstance(loaded.model, Phi4Multimodal)
    return loaded.model


def test_what_the_language_model_gets_becomes_the_answer_token_by_token(
    setting: Setting, model: Phi4Multimodal, encode: Encode
) -> None:
    tokenizer = setting.tokenizer()
    torch.manual_seed(0)
    objective = CaptionLoss(model, list(COLOURS), tokenizer)
    assert {name for name, _ in objective.named_parameters()} == {"nearest.nothing", "nearest.log_temperature"}
    examples = [encode(record) for record in colours(8, "train")]
    trained = select_trained(model, ["vision.encoder", "vision.projector"])
    masters = Masters({**trained, **dict(objective.named_parameters())}, contrast())
    for _ in range(60):
        objective(model, examples).total.backward()
        masters.accumulate()
        masters.update(2e-3)
    assert objective(model, examples).correct == objective.count(examples) == 8
    picture = examples[0].inputs.media[0]
    side = picture.data.mask.shape[-1] // 2
    rows = model.encode(picture, "vision")[-side * (side + 1) :].unflatten(0, (side, side + 1))[:, :-1].flatten(0, 1)
    wanted = tokenizer.encode(examples[0].answer, allow_special=False)
    every = model.embed(torch.tensor(sorted(objective.classes)))
    for row, token in zip(rows, wanted, strict=False):
        assert sorted(objective.classes)[int((every - row).norm(dim=-1).argmin())] == token


def test_an_answer_longer_than_the_picture_counts_as_far_as_it_goes(
    setting: Setting, model: Phi4Multimodal, encode: Encode
) -> None:
    question, answer = colours(1, "train")[0].messages
    long = text_record("long", question, replace(answer, content=" ".join(20 * ["red"])))
    objective = CaptionLoss(model, ["red red", "green"], setting.tokenizer())
    assert bool(objective(model, [encode(long)]).total.isfinite())


def test_a_token_that_training_never_had_is_only_wrong(setting: Setting, model: Phi4Multimodal, encode: Encode) -> None:
    objective = CaptionLoss(model, ["green"], setting.tokenizer())
    loss = objective(model, [encode(record) for record in colours(3, "train") if record.answer != "green"])
    assert loss.correct == 0
    assert bool(loss.total.isfinite())


def test_a_record_without_a_picture_is_named(setting: Setting, model: Phi4Multimodal, encode: Encode) -> None:
    objective = CaptionLoss(model, list(COLOURS), setting.tokenizer())
    with pytest.raises(DataError, match=r"'words'.*vision"):
        objective(model, [encode(text_record("words"))])


def test_a_model_without_vision_is_refused(setting: Setting) -> None:
    deaf = setting.load([setting.packs[1]]).model
    assert isinstance(deaf, Phi4Multimodal)
    with pytest.raises(DataError, match="vision"):
        CaptionLoss(deaf, ["red"], setting.tokenizer())
