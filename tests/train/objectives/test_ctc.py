from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conversations import sound
from data.samples import record as text_record
from phi4.data.example import Example
from phi4.data.record import Record
from phi4.errors import DataError
from phi4.inputs import ImageCrops
from phi4.model.multimodal import Phi4Multimodal
from phi4.train.masters import Masters
from phi4.train.objectives.ctc import BLANK, CtcLoss, collapse, encode_lines, learn_pieces
from phi4.train.parts import select_trained
from train.conftest import Setting
from train.stages import listen
from train.toys import TONES, colours, tones

Encode = Callable[[Record], Example]

LINES = ["low mid", "mid high low", "high  low", "lower than the middle"]


@pytest.fixture
def model(setting: Setting) -> Phi4Multimodal:
    loaded = setting.load(dtype=torch.float32)
    assert isinstance(loaded.model, Phi4Multimodal)
    return loaded.model


def heard(objective: CtcLoss, model: Phi4Multimodal, example: Example) -> str:
    """The text of the best path."""
    (outputs,) = objective.encode(model, [example.inputs.media[0]])
    log_probabilities, _ = objective.classify(model, [outputs])
    path = log_probabilities[:, 0].argmax(dim=-1).tolist()
    text: str = objective.pieces.decode([piece - 1 for piece in collapse(path)])
    return text


def test_it_learns_to_write_down_what_it_hears(model: Phi4Multimodal, encode: Encode) -> None:
    examples = [encode(record) for record in tones(4, "train")]
    torch.manual_seed(0)
    objective = CtcLoss(model, "speech", 16, [example.answer for example in examples])
    trained = select_trained(model, ["speech.encoder"])
    masters = Masters({**trained, **dict(objective.named_parameters())}, listen())
    losses = []
    for _ in range(60):
        loss = objective(model, examples)
        losses.append(float(loss.total.detach()))
        loss.total.backward()
        masters.accumulate()
        masters.update(5e-3)
    assert all(later < earlier for earlier, later in pairwise(losses[:6]))
    assert losses[-1] < 0.1 * losses[0]
    assert [heard(objective, model, example) for example in examples] == [example.answer for example in examples]
    assert objective(model, examples).correct == objective.count(examples) == 4


@pytest.mark.parametrize("modality", ["speech", "vision"])
def test_examples_of_one_row_do_not_hear_each_other(model: Phi4Multimodal, encode: Encode, modality: str) -> None:
    records = tones(3, "train") if modality == "speech" else colours(3, "train")
    examples = [encode(record) for record in records]
    torch.manual_seed(0)
    objective = CtcLoss(model, modality, 16, [example.answer for example in examples])
    together = objective(model, examples).total
    alone = torch.stack([objective(model, [example]).total for example in examples]).sum()
    torch.testing.assert_close(together, alone)


def test_grounded_the_projector_gives_what_is_near_the_embeddings_of_the_pieces(
    setting: Setting, model: Phi4Multimodal, encode: Encode
) -> None:
    """Nothing but the projector trains, and the texts are those of the frozen language model."""
    tokenizer = setting.tokenizer()
    examples = [encode(record) for record in tones(4, "train")]
    torch.manual_seed(0)
    objective = CtcLoss(model, "speech", 16, [example.answer for example in examples], tokenizer)
    assert {name for name, _ in objective.named_parameters()} == {"blank", "log_temperature"}
    trained = select_trained(model, ["speech.encoder", "speech.projectors.speech"])
    masters = Masters({**trained, **dict(objective.named_parameters())}, listen())
    for _ in range(120):
        loss = objective(model, examples)
        loss.total.backward()
        masters.accumulate()
        masters.update(5e-3)
    assert [heard(objective, model, example) for example in examples] == [example.answer for example in examples]
    with torch.no_grad():
        given = model.encode(examples[0].inputs.media[0], "speech")
    assert objective.nearest is not None
    assert (
        float(objective.nearest.length_error(given).detach().mean()) < 0.1
    )  # as long as embeddings are, within a third


def test_a_record_without_a_sound_is_named(model: Phi4Multimodal, encode: Encode) -> None:
    objective = CtcLoss(model, "speech", 16, LINES)
    with pytest.raises(DataError, match=r"'words'.*speech"):
        objective(model, [encode(text_record("words"))])


def test_silence_is_learnt_as_no_text_at_all(model: Phi4Multimodal, encode: Encode) -> None:
    question, answer = tones(1, "train")[0].messages
    silence = text_record("silence", question, replace(answer, content=""))
    objective = CtcLoss(model, "speech", 16, LINES)
    loss = objective(model, [encode(silence)])
    assert float(loss.total.detach()) > 0
    assert bool(loss.total.isfinite())


@pytest.mark.parametrize("modality", ["smell", "vision"])
def test_a_model_without_the_modality_is_refused(setting: Setting, modality: str) -> None:
    blind = setting.load([setting.packs[1]]).model
    assert isinstance(blind, Phi4Multimodal)
    with pytest.raises(DataError, match=modality):
        CtcLoss(blind, modality, 16, LINES)


@torch.inference_mode()
def test_a_clip_is_encoded_as_it_is_alone_whatever_its_company(model: Phi4Multimodal) -> None:
    encoder = model.speech.encoder
    clips = [sound(length, seed=length).frames for length in (1, 8, 9, 57, 100, 100, 215)]
    for own, clip in zip(encoder.encode_clips(clips), clips, strict=True):
        torch.testing.assert_close(own, encoder(clip), atol=1e-5, rtol=1e-5)
    long = [clips[3], sound(4100, seed=1).frames]  # beyond 500 tokens, where clips are cut
    torch.testing.assert_close(encoder.encode_clips(long)[1], encoder(long[1]), atol=1e-5, rtol=1e-5)
    loud = [clips[3], 100 * clips[6]]
    torch.testing.assert_close(encoder.encode_clips(loud)[0], encoder.encode_clips(clips)[3], atol=1e-5, rtol=1e-5)


def test_no_gradient_leaks_from_one_clip_to_another(model: Phi4Multimodal) -> None:
    clips = [sound(length, seed=length).frames.requires_grad_() for length in (40, 90)]
    model.speech.encoder.encode_clips(clips)[1].sum().backward()
    assert clips[0].grad is not None
    assert clips[1].grad is not None
    assert not clips[0].grad.any()
    assert clips[1].grad.any()


@torch.inference_mode()
def test_a_line_of_text_is_read_column_by_column(model: Phi4Multimodal) -> None:
    """A column of patches is the mean over its rows; the columns of a tile follow those of the tile to its left."""
    crops = torch.randn(3, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(3, 4, 4, dtype=torch.bool)
    (columns,) = encode_lines(model, [ImageCrops(crops, mask, columns=2, rows=1)])
    patches = model.vision.encoder(crops, mask).unflatten(1, (4, 4))
    torch.testing.assert_close(columns, torch.cat([patches[1].mean(0), patches[2].mean(0)]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("path", "pieces"),
    [
        ([], []),
        ([BLANK, BLANK], []),
        ([3, 3, 3], [3]),
        ([3, BLANK, 3], [3, 3]),
        ([BLANK, 3, 3, 5, BLANK, BLANK, 5, 2], [3, 5, 5, 2]),
    ],
)
def test_a_path_collapses(path: list[int], pieces: list[int]) -> None:
    assert collapse(path) == pieces


@settings(deadline=None)
@given(st.text(alphabet="".join(sorted({*"".join(LINES)}))))
def test_pieces_join_to_the_text(text: str) -> None:
    """All but a space at the beginning, which is that of the first word."""
    pieces = learn_pieces(LINES, 40)
    assert pieces.decode(pieces.encode(text).ids) == text.removeprefix(" ")


def test_pieces_do_not_depend_on_the_order_of_the_texts() -> None:
    assert learn_pieces(LINES, 40).to_str() == learn_pieces(LINES[::-1], 40).to_str()


def test_frequent_words_become_one_piece() -> None:
    pieces = learn_pieces([" ".join(TONES)] * 5, 40)
    assert len(pieces.encode("low mid high").ids) == 3
