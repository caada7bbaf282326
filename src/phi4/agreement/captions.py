"""Leaves out pictures whose caption speaks of something else, as the project's own encoder sees it."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from datatrove.data import Document

from phi4.agreement.model import Judge
from phi4.assistant import DEFAULT_MODEL, Assistant
from phi4.data.curate.curation import BatchFilter, Reason
from phi4.data.curate.documents import answer, pictures
from phi4.data.curate.media import UNDECODABLE
from phi4.errors import CapacityError, InputError
from phi4.inputs import ImageCrops
from phi4.model.multimodal import Phi4Multimodal
from phi4.processing.messages import Image
from phi4.train.objectives.contrastive import average_token
from phi4.train.objectives.embeddings import NearestText, text_embeddings
from phi4.train.objectives.loss import stacked_global_views

# Of the vocabulary, at most so many tokens say what embeddings have in common: 200 MB of those of the full model.
NUM_TOKENS = 2**14


def caption_agreement(
    min_score: float = 0.1, model: str | Path = DEFAULT_MODEL, packs: Sequence[str | Path] | None = None
) -> BatchFilter:
    """Leaves out documents with a picture that does not agree with the last answer, its caption.

    The score is that of grounded contrastive training: the cosine between the mean of what the language model gets of
    the picture's global view and the mean embedding of the caption's tokens, as seen from the mean of the vocabulary's
    embeddings and whitened by them. It is 0 on average for a caption of another picture. The vision pack must have been
    trained that way, as nano's was, or the score says nothing.

    Args:
        min_score: of every picture, -1 to 1.
        model: as for `Assistant.load`.
        packs: files of packs; None takes those that come with the model.
    """
    judge = Judge.of(model, packs)

    def reasons(documents: Sequence[Document]) -> list[str | Reason | None]:
        return _reasons(_scorer(judge), documents, min_score)

    return BatchFilter("caption agreement", reasons, files=judge.files)


def _reasons(scorer: "CaptionScorer", documents: Sequence[Document], min_score: float) -> list[str | Reason | None]:
    found: list[str | Reason | None] = [None] * len(documents)
    places, views, captions = [], [], []
    for place, document in enumerate(documents):
        caption = answer(document)
        if pictures(document) and not caption.strip():
            found[place] = "a picture without a caption"
            continue
        try:
            own = [scorer.prepare(content) for content in pictures(document)]
        except (InputError, CapacityError):
            found[place] = UNDECODABLE["picture"]
            continue
        views += own
        places += [place] * len(own)
        captions += [caption] * len(own)
    for place, score in zip(places, scorer.scores(views, captions), strict=True):
        if score < min_score and found[place] is None:
            found[place] = Reason("a caption that does not agree with its picture", f"score {score:.3f}")
    return found


class CaptionScorer:
    """Scores pictures with texts."""

    def __init__(self, assistant: Assistant) -> None:
        """Learns what the embeddings of a model with vision have in common."""
        model = assistant.loaded.model
        assert isinstance(model, Phi4Multimodal)
        self._model = model
        self._processor = assistant.processor
        vocab_size = assistant.processor.vocab_size
        tokens = torch.arange(0, vocab_size, -(-vocab_size // NUM_TOKENS), device=model.device)
        with torch.no_grad():
            self._space = NearestText(model.embed(tokens).float(), whitened=True)

    def prepare(self, content: bytes) -> ImageCrops:
        """Decodes a picture.

        Raises:
            InputError, CapacityError: it cannot be used.
        """
        (media,) = (media for media in self._processor.media_processors if media.modality == Image.modality)
        crops: ImageCrops = media.prepare(content)
        return crops

    @torch.no_grad()
    def scores(self, prepared: Sequence[ImageCrops], texts: Sequence[str]) -> list[float]:
        """The cosine of each picture with the text in the same place; no text may be empty."""
        if not prepared:
            return []
        rows = average_token(self._model, self._model.vision.encoder(*stacked_global_views(self._model, prepared)))
        own = text_embeddings(self._model, self._processor.tokenizer, texts)
        cosines: list[float] = (self._space.place(rows) * self._space.place(own)).sum(-1).tolist()
        return cosines


@cache
def _scorer(judge: Judge) -> CaptionScorer:
    return CaptionScorer(judge.load(Image.modality))
