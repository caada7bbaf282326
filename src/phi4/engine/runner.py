"""Runs the pieces of a step: ids and features in, scores out."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from phi4.engine.feature_cache import FeatureCache
from phi4.engine.language_model import LanguageModel
from phi4.engine.plan import Piece
from phi4.engine.row import Row
from phi4.engine.sampler import LogProbabilities, log_probabilities
from phi4.inputs import Medium
from phi4.model.paged_cache import PagedCache
from phi4.model.step import Segment

# Places of prompts whose scores exist at once: a row of 200,064 scores takes 800 KB in fp32.
SCORED_TOGETHER = 64


@dataclass(frozen=True, eq=False)
class StepResult:
    """What a step gave.

    Attributes:
        pieces: those that ran.
        logits: scores of the places that they ask for, in their order, [places, vocabulary].
        prompt_scores: of each piece, what the model thought of the tokens behind `Piece.scored_prompt`.
        failed: rows that could not run, and why.
    """

    pieces: list[Piece]
    logits: torch.Tensor
    prompt_scores: list[list[LogProbabilities]]
    failed: list[tuple[Row, Exception]]


class Runner:
    """Owns what is on the device: the model, the cache and the features of rows that are being answered."""

    def __init__(self, model: LanguageModel, cache: PagedCache, features: FeatureCache) -> None:
        self.model = model
        # The weights of a model that is served stay where they are.
        self.native_layers = model.native_layers()
        self.cache = cache
        self.features = features
        # A row's features stay until it is finished: it may be computed again, and they may have left the cache.
        self._features_of_rows: dict[Row, dict[int, torch.Tensor]] = {}

    def forget(self, row: Row) -> None:
        """Drops the features of a row that is finished."""
        self._features_of_rows.pop(row, None)

    def forget_all(self) -> None:
        """Drops the features of all rows."""
        self._features_of_rows.clear()

    def run(self, pieces: Sequence[Piece]) -> StepResult:
        """Runs one packed step. A row whose media cannot be encoded fails alone; where the model fails, all rows do."""
        runnable, failed = self._encode_media(pieces)
        try:
            logits, prompt_scores = self._forward(runnable)
        except Exception as error:  # of whatever kind: it belongs to these rows, and others must go on
            return StepResult([], torch.empty(0, 0), [], [*failed, *((piece.row, error) for piece in runnable)])
        return StepResult(runnable, logits, prompt_scores, failed)

    def _forward(self, pieces: Sequence[Piece]) -> tuple[torch.Tensor, list[list[LogProbabilities]]]:
        if not pieces:
            return torch.empty(0, 0), []
        segments = [
            Segment(
                length=len(piece.token_ids),
                cached=piece.start,
                adapter=piece.row.adapter,
                rotary=piece.table.rotary,
                cache=self.cache.row(piece.table.blocks),
            )
            for piece in pieces
        ]
        ends = list(accumulate(segment.length for segment in segments))
        chosen = [row for piece, end in zip(pieces, ends, strict=True) for row in range(end - piece.num_choices, end)]
        read = [
            end - len(piece.token_ids) + position - piece.start
            for piece, end in zip(pieces, ends, strict=True)
            for position in piece.scored_prompt
        ]
        hidden = self.model(self._embed(pieces), self.model.step(segments, chosen + read), self.native_layers)
        logits = self.model.logits(hidden[: len(chosen)])
        parts = hidden[len(chosen) :].split([len(piece.scored_prompt) for piece in pieces])
        return logits, [self._score_prompt(*one) for one in zip(pieces, parts, strict=True)]

    def _score_prompt(self, piece: Piece, hidden: torch.Tensor) -> list[LogProbabilities]:
        """What the model thought of the tokens behind some of a prompt, from their hidden states, [places, hidden]."""
        found: list[LogProbabilities] = []
        for rows in hidden.split(SCORED_TOGETHER):
            first = piece.scored_prompt.start + len(found) + 1
            token_ids = piece.row.token_ids[first : first + len(rows)]
            if token_ids:
                found += log_probabilities(self.model.logits(rows).float(), token_ids, piece.row.prompt_logprobs or 0)
        return found

    def _embed(self, pieces: Sequence[Piece]) -> torch.Tensor:
        """[tokens, hidden] of all pieces, features in the places of placeholders."""
        ids = [token_id for piece in pieces for token_id in piece.token_ids]
        embeddings = self.model.embed(torch.tensor(ids, device=self.model.device))
        offset = 0
        for piece in pieces:
            stop = piece.start + piece.length
            for place, medium in _media_inside(piece):
                features = self._features_of_rows[piece.row][place]
                first, last = max(medium.start, piece.start), min(medium.start + medium.num_tokens, stop)
                rows = slice(offset + first - piece.start, offset + last - piece.start)
                embeddings[rows] = features[first - medium.start : last - medium.start]
            offset += piece.length + len(piece.drafts)
        return embeddings

    def _encode_media(self, pieces: Sequence[Piece]) -> tuple[list[Piece], list[tuple[Row, Exception]]]:
        """Encodes the media that these pieces need; returns the pieces that can run, and the rows that cannot."""
        wanted = {
            (piece.row, place): medium
            for piece in pieces
            for place, medium in _media_inside(piece)
            if place not in self._features_of_rows.get(piece.row, ())
        }
        encoded = self.features.encode([(medium, row.adapter) for (row, _), medium in wanted.items()])
        errors: dict[Row, Exception] = {}
        for (row, place), features in zip(wanted, encoded, strict=True):
            if isinstance(features, Exception):
                errors.setdefault(row, features)
            else:
                self._features_of_rows.setdefault(row, {})[place] = features
        runnable = [piece for piece in pieces if piece.row not in errors]
        return runnable, list(errors.items())


def _media_inside(piece: Piece) -> list[tuple[int, Medium]]:
    """The media that have placeholders among the tokens of a piece, with their places in the conversation."""
    stop = piece.start + piece.length
    return [
        (place, medium)
        for place, medium in enumerate(piece.row.media)
        if medium.start < stop and piece.start < medium.start + medium.num_tokens
    ]
