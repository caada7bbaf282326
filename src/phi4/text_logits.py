"""Compares the logits of text in a model with modalities and in its language model alone, bit for bit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np
import PIL.Image
import torch

from phi4.assistant import Assistant
from phi4.engine.language_model import LanguageModel
from phi4.engine.whole_pass import embed_whole, score, whole_segment
from phi4.errors import CheckpointError
from phi4.inputs import ModelInputs
from phi4.model.step import Segment
from phi4.processing.messages import Message, user_message

PROMPTS = (
    "Hi",
    "What is the capital of France?",
    "Write a haiku about the sea, then say in one sentence why you chose its last word.",
    "def mean(values):\n    return sum(values) / len(values)\n\nWhat happens when `values` is empty?",
    "A train leaves at 9:40 and arrives at 13:05. It stops four times, for six minutes each. How long does it move? "
    "Explain each step of your calculation, and name what you assumed although the question does not say it.",
)

# Rows that stand for a medium of a modality from outside, of which no example is at hand.
NUM_ADDED_ROWS = 8

_BITS = {2: torch.int16, 4: torch.int32}


@dataclass(frozen=True)
class LogitProof:
    """Logits of text with every modality resident, compared with those of the bare language model.

    Attributes:
        setting: what the text shared its step with.
        rows: how many rows of logits were compared.
        different: how many logits differ in any bit.
        largest_difference: between a logit and the one that it must be.
    """

    setting: str
    rows: int
    different: int
    largest_difference: float

    @property
    def passed(self) -> bool:
        """Whether all bits are equal."""
        return self.different == 0


def compare_logits(resident: Assistant, bare: Assistant) -> tuple[tuple[LogitProof, ...], float]:
    """Compares the logits of fixed texts, alone and in steps that they share.

    Both sides always have the same number of rows, since the stock matrix product rounds with that number
    (docs/decisions/0001-packed-tokens.md). In the step that texts share with media, the bare model is given the very
    rows that the encoders made, and has no adapter for them.

    Args:
        resident: the model with all its modalities.
        bare: its language model alone.

    Returns:
        The proofs, and the largest difference that the adapters made to the last rows of the media conversations.

    Raises:
        CheckpointError: a score is not a finite number.
    """
    texts = [bare.processor.prepare([Message("user", prompt)]) for prompt in PROMPTS]
    models = (resident.loaded.model, bare.loaded.model)
    media = _media_conversations(resident)
    without_adapters = [replace(one, segment=replace(one.segment, adapter=None)) for one in media]
    apart = [torch.cat([score(model, [text])[0] for text in texts]) for model in models]
    together = [torch.cat(score(model, texts)) for model in models]
    found, found_media = _score_shared(models[0], texts, media)
    expected, expected_media = _score_shared(models[1], texts, without_adapters)
    proofs = (
        _compare("each text alone", *apart),
        _compare("texts in one step", *together),
        _compare(f"texts in one step with {', '.join(one.media for one in media)}", found, expected),
    )
    return proofs, _compare("media", found_media, expected_media).largest_difference


def _compare(setting: str, found: torch.Tensor, expected: torch.Tensor) -> LogitProof:
    """Compares two tensors of logits, [rows, vocabulary]."""
    if not bool(torch.isfinite(found).all() and torch.isfinite(expected).all()):
        raise CheckpointError(
            f"the model's scores for {setting} are not finite numbers: its weights are damaged, or overflow in "
            f"{found.dtype}; check the files, or load them as bfloat16 or float32"
        )
    bits = _BITS[found.element_size()]
    different = int((found.view(bits) != expected.view(bits)).sum())
    return LogitProof(setting, found.shape[0], different, float((found - expected).abs().max()))


@dataclass(frozen=True)
class _Conversation:
    """A conversation in a step: what kind of media it has ("text" if none), and its rows, [tokens, hidden]."""

    media: str
    rows: torch.Tensor
    segment: Segment


def _conversation(model: LanguageModel, media: str, inputs: ModelInputs) -> _Conversation:
    return _Conversation(media, embed_whole(model, inputs), whole_segment(model, inputs))


@torch.inference_mode()
def _media_conversations(assistant: Assistant) -> list[_Conversation]:
    """Makes a conversation about noise for every mixture of media that the model takes."""
    generator = np.random.default_rng(0)
    picture = PIL.Image.fromarray(generator.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    sound = (generator.normal(scale=0.1, size=8000).astype(np.float32), 16000)
    model, config = assistant.loaded.model, assistant.loaded.config
    conversations = []
    for media in ("vision", "speech", "vision+speech"):
        if set(media.split("+")) <= config.adapters.keys():
            images, sounds = [picture] if "vision" in media else [], [sound] if "speech" in media else []
            inputs = assistant.processor.prepare([user_message("What is this?", images, sounds)])
            conversations.append(_conversation(model, media, inputs))
    for name in config.added:
        rows = torch.from_numpy(generator.normal(size=(NUM_ADDED_ROWS, config.decoder.hidden_size)))
        segment = Segment(NUM_ADDED_ROWS, adapter=name)
        conversations.append(_Conversation(name, rows.to(model.device, model.dtype), segment))
    return conversations


@torch.inference_mode()
def _score_shared(
    model: LanguageModel, texts: Sequence[ModelInputs], media: Sequence[_Conversation]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Runs texts and media in one step, by turns.

    Returns:
        The logits of all rows of text, and of the last row of each media conversation, [rows, vocabulary] both.
    """
    own = [_conversation(model, "text", text) for text in texts]
    conversations = [one for pair in zip_longest(media, own) for one in pair if one is not None]
    text_rows: list[int] = []
    media_rows: list[int] = []
    end = 0
    for one in conversations:
        start, end = end, end + one.segment.length
        if one.media == "text":
            text_rows += range(start, end)
        else:
            media_rows.append(end - 1)
    step = model.step([one.segment for one in conversations], [*text_rows, *media_rows])
    logits = model.logits(model(torch.cat([one.rows for one in conversations]), step))
    return logits[: len(text_rows)], logits[len(text_rows) :]
