"""Runs the pieces of a step: ids and features in, scores out."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from phi4.engine.feature_cache import FeatureCache
from phi4.engine.language_model import LanguageModel
from phi4.engine.plan import Piece
from phi4.engine.row import Row
from phi4.inputs import Medium
from phi4.model.paged_cache import PagedCache
from phi4.model.step import Segment


@dataclass(frozen=True, eq=False)
class StepResult:
    """What a step gave.

    Attributes:
        pieces: those that ran.
        logits: scores of the places that they ask for, in their order: fp32, [places, vocabulary].
        failed: rows that could not run, and why.
    """

    pieces: list[Piece]
    logits: torch.Tensor
    failed: list[tuple[Row, Exception]]


class Runner:
    """Owns what is on the device: the model, the cache and the features of rows that are being answered."""

    def __init__(self, model: LanguageModel, cache: PagedCache, features: FeatureCache) -> None:
        self.model = model
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
            logits = self._forward(runnable)
        except Exception as error:  # of whatever kind: it belongs to these rows, and others must go on
            return StepResult([], torch.empty(0, 0), [*failed, *((piece.row, error) for piece in runnable)])
        return StepResult(runnable, logits, failed)

    def _forward(self, pieces: Sequence[Piece]) -> torch.Tensor:
        if not pieces:
            return torch.empty(0, 0)
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
        ends = accumulate(segment.length for segment in segments)
        scored = [row for piece, end in zip(pieces, ends, strict=True) for row in range(end - piece.num_choices, end)]
        hidden = self.model(self._embed(pieces), self.model.step(segments, scored))
        return self.model.logits(hidden).float()

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
