from collections.abc import Callable
from itertools import pairwise

import pytest
import torch

from data.samples import record as text_record
from phi4.data.example import Example
from phi4.data.record import Record
from phi4.errors import DataError
from phi4.model.multimodal import Phi4Multimodal
from phi4.processing.tokenizer import Tokenizer
from phi4.train.masters import Masters
from phi4.train.objectives.contrastive import ContrastiveLoss, average_token
from phi4.train.objectives.loss import global_views
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


@pytest.fixture(scope="module")
def tokenizer(setting: Setting) -> Tokenizer:
    return setting.tokenizer()


@pytest.fixture
def objective(model: Phi4Multimodal) -> ContrastiveLoss:
    torch.manual_seed(0)
    return ContrastiveLoss(model, [*COLOURS, *COLOURS])


def test_the_loss_is_that_of_siglip_over_pictures_and_distinct_texts(
    model: Phi4Multimodal, objective: ContrastiveLoss, encode: Encode
) -> None:
    examples = [encode(record) for record in colours(5, "train")]
    crops = torch.stack([example.inputs.media[0].data.crops[0] for example in examples])
    with torch.no_grad():
        features = model.vision.encoder(
            crops, torch.stack([example.inputs.media[0].data.mask[0] for example in examples])
        )
        pictures, texts = model.vision.encoder.summarise(features), objective.text_vectors
        temperature, bias = float(objective.log_temperature.exp()), float(objective.bias)
        expected = 0.0
        for picture, example in zip(pictures, examples, strict=True):
            for text, vector in zip(sorted(COLOURS), texts, strict=True):
                sign = 1.0 if text == example.answer else -1.0
                cosine = torch.cosine_similarity(picture, vector, dim=0)
                expected -= float(torch.log(torch.sigmoid(sign * (temperature * cosine + bias))))
        assert float(objective(model, examples).total) == pytest.approx(expected, rel=1e-5)
    assert objective.count(examples) == 5


def test_it_learns_and_trains_every_layer_of_the_tower_and_the_head(
    model: Phi4Multimodal, objective: ContrastiveLoss, encode: Encode
) -> None:
    examples = [encode(record) for record in colours(8, "train")]
    trained = select_trained(model, ["vision.encoder"])
    before = {name: parameter.detach().clone() for name, parameter in trained.items()}
    masters = Masters({**trained, **dict(objective.named_parameters())}, contrast())
    losses = []
    for _ in range(12):
        loss = objective(model, examples)
        losses.append(float(loss.total.detach()))
        loss.total.backward()
        masters.accumulate()
        masters.update(2e-3)
    assert all(later < earlier for earlier, later in pairwise(losses))
    assert objective(model, examples).correct == 8
    # A softmax does not feel the bias of its keys.
    unchanged = {name for name, parameter in trained.items() if torch.equal(parameter, before[name])}
    assert {name.rsplit(".", 2)[-2] for name in unchanged} <= {"k_proj"}
    assert "vision.encoder.head.probe" in trained


def test_grounded_a_picture_is_the_mean_of_what_the_language_model_gets_of_its_global_view(
    model: Phi4Multimodal, encode: Encode
) -> None:
    picture = encode(colours(1, "train")[0]).inputs.media[0].data
    side = picture.mask.shape[-1] // 2
    global_view = model.vision(picture)[-side * (side + 1) :].unflatten(0, (side, side + 1))
    expected = global_view[:, :-1].mean(dim=(0, 1))  # the last column is the row separator
    torch.testing.assert_close(
        average_token(model, model.vision.encoder(picture.crops[:1], picture.mask[:1]))[0], expected
    )


def test_grounded_the_projector_learns_to_point_where_the_embeddings_of_the_text_do(
    model: Phi4Multimodal, tokenizer: Tokenizer, encode: Encode
) -> None:
    objective = ContrastiveLoss(model, list(COLOURS), tokenizer)
    own = dict(objective.named_parameters())
    assert set(own) == {"log_temperature", "bias"}
    examples = [encode(record) for record in colours(8, "train")]
    trained = select_trained(model, ["vision.encoder", "vision.projector"])
    masters = Masters({**trained, **own}, contrast())
    for _ in range(40):
        objective(model, examples).total.backward()
        masters.accumulate()
        masters.update(2e-3)
    assert objective(model, examples).correct == 8
    crops, mask = global_views(model, examples)
    with torch.no_grad():
        tokens = average_token(model, model.vision.encoder(crops, mask))
    assert objective.nearest is not None
    # About as long as embeddings are.
    assert float(objective.nearest.length_error(tokens).mean()) < 0.1


def test_a_name_that_training_never_had_is_only_wrong(
    model: Phi4Multimodal, objective: ContrastiveLoss, encode: Encode
) -> None:
    (known,) = colours(1, "valid")
    question, answer = known.messages
    unknown = text_record("unknown", question, type(answer)("assistant", "violet"))
    loss = objective(model, [encode(unknown)])
    assert loss.correct == 0
    assert bool(torch.isfinite(loss.total))


def test_a_record_without_a_picture_is_named(model: Phi4Multimodal, objective: ContrastiveLoss, encode: Encode) -> None:
    with pytest.raises(DataError, match=r"'words'.*vision"):
        objective(model, [encode(text_record("words"))])


def test_a_picture_without_a_text_is_refused(model: Phi4Multimodal) -> None:
    with pytest.raises(DataError, match="an answer is empty"):
        ContrastiveLoss(model, ["red", ""])


def test_a_model_without_vision_is_refused(setting: Setting) -> None:
    deaf = setting.load([setting.packs[1]]).model
    assert isinstance(deaf, Phi4Multimodal)
    with pytest.raises(DataError, match="vision"):
        ContrastiveLoss(deaf, ["red"])
