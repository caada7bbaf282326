"""Connectionist temporal classification: pre-training of an encoder that reads or listens from left to right."""

import math
from collections.abc import Sequence
from itertools import groupby

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from torch.nn import functional

from phi4.data.example import Example
from phi4.errors import DataError
from phi4.inputs import AudioFrames, ImageCrops, Medium
from phi4.model.multimodal import Phi4Multimodal
from phi4.model.vision import join_tiles
from phi4.processing.tokenizer import Tokenizer as LanguageTokenizer
from phi4.train.objectives.embeddings import LENGTH_WEIGHT, NearestText, text_embeddings
from phi4.train.objectives.loss import Loss, ObjectiveLoss, first_medium

# Class 0 is the blank; piece n is class n + 1.
BLANK = 0
WORD_BEGINS = "▁"


class CtcLoss(ObjectiveLoss):
    """The encoder's outputs, one linear layer, and word pieces learned from the training answers."""

    def __init__(
        self,
        model: Phi4Multimodal,
        modality: str,
        num_pieces: int,
        answers: Sequence[str],
        embedding: LanguageTokenizer | None = None,
    ) -> None:
        """Learns the pieces.

        Args:
            model: has the encoder.
            modality: "speech" or "vision".
            num_pieces: at most.
            answers: texts to learn pieces from.
            embedding: the language model's tokenizer, for outputs that are to go through the projector and be near
                the embeddings of the pieces; None leaves the language model out of it.
        """
        super().__init__()
        self.modality = modality
        self.pieces = learn_pieces(answers, num_pieces)
        width = encoder_width(model, modality)
        if embedding is None:
            self.nearest: NearestText | None = None
            self.classes = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, self.pieces.get_vocab_size() + 1))
        else:
            vocabulary = self.pieces.get_vocab()
            texts = [piece.replace(WORD_BEGINS, " ") for piece in sorted(vocabulary, key=vocabulary.__getitem__)]
            self.nearest = NearestText(text_embeddings(model, embedding, texts))
            self.blank = nn.Parameter(torch.zeros(1, len(self.nearest.mean)))
            self.log_temperature = nn.Parameter(torch.tensor(math.log(20.0)))

    def count(self, examples: Sequence[Example]) -> int:
        """Conversations."""
        return len(examples)

    def forward(self, model: Phi4Multimodal, examples: Sequence[Example]) -> Loss:
        """Aligns each example's first medium with the text of its answer."""
        media = [first_medium(example, self.modality) for example in examples]
        outputs = self.encode(model, media)
        lengths = torch.tensor([output.shape[0] for output in outputs])
        log_probabilities, length_errors = self.classify(model, outputs)
        targets = [[piece + 1 for piece in self.pieces.encode(example.answer).ids] for example in examples]
        losses = functional.ctc_loss(
            log_probabilities,
            torch.tensor([p for own in targets for p in own], dtype=torch.long, device=log_probabilities.device),
            lengths,
            torch.tensor([len(own) for own in targets]),
            blank=BLANK,
            reduction="none",
            zero_infinity=True,
        )
        best = log_probabilities.argmax(dim=-1).T.tolist()
        found = [collapse(path[:length]) for path, length in zip(best, lengths.tolist(), strict=True)]
        # Longer texts weigh no more than shorter ones.
        weights = 1.0 / torch.tensor([max(1, len(own)) for own in targets], device=losses.device)
        total = (losses * weights).sum() + LENGTH_WEIGHT * length_errors
        return Loss(total, sum(a == b for a, b in zip(found, targets, strict=True)))

    def encode(self, model: Phi4Multimodal, media: Sequence[Medium]) -> list[torch.Tensor]:
        """Runs the encoder: for each medium, [length, width]."""
        if self.modality == "speech":
            return encode_sounds(model, [m.data for m in media if isinstance(m.data, AudioFrames)])
        return encode_lines(model, [m.data for m in media if isinstance(m.data, ImageCrops)])

    def classify(self, model: Phi4Multimodal, outputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores the pieces.

        Args:
            model: has the projector, if grounded.
            outputs: of the encoder, for each medium [length, width].

        Returns:
            Log-probabilities, [longest length, media, blank and pieces], and the summed error of the length of what the
            projector gives, a mean for each medium; 0 without it.
        """
        if self.nearest is None:
            padded = nn.utils.rnn.pad_sequence(list(outputs))
            return torch.log_softmax(self.classes(padded.float()), dim=-1), padded.new_zeros(())
        speech = self.modality == "speech"
        projector: nn.Module = model.speech.projectors["speech"] if speech else model.vision.projector
        lengths = [output.shape[0] for output in outputs]
        projected = projector(torch.cat(list(outputs)))
        shares = torch.tensor([1.0 / length for length in lengths for _ in range(length)], device=projected.device)
        errors = (self.nearest.length_error(projected) * shares).sum()
        padded = nn.utils.rnn.pad_sequence(projected.split(lengths))
        cosines = torch.cat((self.nearest.place(padded) @ self.blank.T, self.nearest.cosines(padded)), dim=-1)
        return torch.log_softmax(self.log_temperature.exp() * cosines, dim=-1), errors


def encode_sounds(model: Phi4Multimodal, sounds: Sequence[AudioFrames]) -> list[torch.Tensor]:
    """Encodes clips: for each, [tokens, width]."""
    mean = model.speech.encoder.global_mean
    clips = [sound.frames.to(mean.device, mean.dtype) for sound in sounds]
    outputs: list[torch.Tensor] = model.speech.encoder.encode_clips(clips)
    return outputs


def encode_lines(model: Phi4Multimodal, pictures: Sequence[ImageCrops]) -> list[torch.Tensor]:
    """Encodes pictures of one line of text, column by column: for each, [columns of patches, width]."""
    weight = model.vision.encoder.patch_embedding.weight
    crops = torch.cat([picture.crops[1:] for picture in pictures]).to(weight.device, weight.dtype)
    masks = torch.cat([picture.mask[1:] for picture in pictures]).to(weight.device)
    side = masks.shape[-1]
    patches = model.vision.encoder(crops, masks).unflatten(1, (side, side))
    tiles = patches.split([picture.rows * picture.columns for picture in pictures])
    grids = [join_tiles(own, p.rows, p.columns) for own, p in zip(tiles, pictures, strict=True)]
    return [grid.mean(dim=0) for grid in grids]


def encoder_width(model: Phi4Multimodal, modality: str) -> int:
    """Width of the encoder's outputs.

    Raises:
        DataError: the model has no such encoder.
    """
    config = {"speech": model.config.speech, "vision": model.config.vision}.get(modality)
    if config is None:
        raise DataError(f"CTC training of {modality!r} needs a model that has this modality")
    return config.hidden_size


def learn_pieces(texts: Sequence[str], num_pieces: int) -> Tokenizer:
    """Learns word pieces by byte-pair encoding.

    A piece begins a word or continues one. Joined, they are the exact text, but for a space at its beginning and
    letters that no text has.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=num_pieces, show_progress=False)
    tokenizer.train_from_iterator(sorted(texts), trainer)
    return tokenizer


def collapse(path: Sequence[int]) -> list[int]:
    """The pieces of a best path: neighbours that repeat are one, blanks are none."""
    return [piece for piece, _ in groupby(path) if piece != BLANK]
