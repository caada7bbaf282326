"""What keeps nano's tower reading while it learns the names of drawings: lines of text, letter by letter."""

from collections.abc import Sequence

import numpy as np
import torch

from phi4.checkpoint.weights import LoadedModel
from phi4.data.example import encode_example
from phi4.data.record import Record
from phi4.processing.processor import Processor
from phi4.train.objectives.ctc import CtcLoss
from recipes.nano.augment_pictures import augment
from recipes.nano.gather import multimodal
from recipes.nano.guide import quickly

# At most so many pieces of words, of which most are letters.
PIECES = 64
LINES_PER_STEP = 16


class Reading:
    """Connectionist temporal classification of lines, by the angles to what the language model would get of letters."""

    def __init__(self, loaded: LoadedModel, records: Sequence[Record], seed: int) -> None:
        """Learns the pieces.

        Args:
            loaded: has the tower and the projector.
            records: lines to read.
            seed: of which lines come when, and of how they are changed.
        """
        self._model = multimodal(loaded)
        self._records = records
        self._generator = np.random.default_rng(seed)
        self._processor = Processor.load(loaded.directory, loaded.config, loaded.preprocessor)
        self._end_tokens = loaded.generation.eos_token_ids
        answers = [record.answer for record in records]
        self.objective = CtcLoss(self._model, "vision", PIECES, answers, self._processor.tokenizer)

    def loss(self) -> torch.Tensor:
        """That of some lines, drawn and changed at random: the mean for each piece of a line."""
        places = self._generator.integers(len(self._records), size=LINES_PER_STEP)
        lines = [augment(self._records[place], self._generator) for place in places]
        examples = [encode_example(line, self._processor, self._end_tokens) for line in lines]
        with quickly():
            return self.objective(self._model, examples).total / len(examples)
