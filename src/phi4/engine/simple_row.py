"""The state of one conversation while its answer is generated."""

import torch

from phi4.config import DecoderConfig
from phi4.engine.language_model import LanguageModel
from phi4.engine.sampling import Sampling, sample
from phi4.errors import CapacityError, CheckpointError, InputError
from phi4.inputs import ModelInputs
from phi4.model.kv_cache import KVCache
from phi4.model.step import Segment, rotary_for


class Row:
    """Token ids so far, how many of them are cached, and the features of the media.

    Encoders run once, when the row is made; later passes only look features up.
    """

    def __init__(self, model: LanguageModel, inputs: ModelInputs, sampling: Sampling) -> None:
        check_inputs(model.decoder_config, inputs)
        self.config = model.decoder_config
        self.media = inputs.media
        self.sampling = sampling
        self.adapter = model.adapter_for(inputs.modalities)
        self.features = [model.encode(medium, self.adapter) for medium in inputs.media]
        self.token_ids = list(inputs.token_ids)
        self.num_prompt_tokens = len(self.token_ids)
        self.num_cached = 0
        self.rotary = rotary_for(self.config, self.num_prompt_tokens)
        self.cache = KVCache(self.config, model.dtype, model.device)
        self.generator = sampling.generator()

    @property
    def num_answer_tokens(self) -> int:
        """Tokens generated so far."""
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def is_full(self) -> bool:
        """Whether the answer has all the tokens that it may have."""
        return (
            self.num_answer_tokens >= self.sampling.max_tokens
            or len(self.token_ids) >= self.config.max_position_embeddings
        )

    def next_segment(self, max_tokens: int) -> Segment:
        """The next tokens to run, at most `max_tokens`.

        A row that grew past the original context starts over with the long factors: keys rotated with the short ones
        are of no use to it (facts sheet 1.5).
        """
        rotary = rotary_for(self.config, len(self.token_ids))
        if rotary != self.rotary:
            self.rotary = rotary
            self.num_cached = 0
        return Segment(
            length=min(len(self.token_ids) - self.num_cached, max_tokens),
            cached=self.num_cached,
            adapter=self.adapter,
            rotary=self.rotary,
            cache=self.cache,
        )

    def embed(self, model: LanguageModel, start: int, stop: int) -> torch.Tensor:
        """Embeds tokens start <= i < stop, features in the places of placeholders: [tokens, hidden]."""
        embeddings = model.embed(torch.tensor(self.token_ids[start:stop], device=model.device))
        for medium, features in zip(self.media, self.features, strict=True):
            first, last = max(medium.start, start), min(medium.start + medium.num_tokens, stop)
            if first < last:
                embeddings[first - start : last - start] = features[first - medium.start : last - medium.start]
        return embeddings

    def append(self, logits: torch.Tensor) -> int:
        """Chooses the next token from [vocabulary] scores and adds it.

        Raises:
            CheckpointError: the scores are not finite.
        """
        if not bool(torch.isfinite(logits).all()):
            raise CheckpointError(
                "the model's scores are not finite numbers: its weights are damaged, or overflow in their dtype; "
                "check the files, or load them as bfloat16 or float32"
            )
        token_id = sample(logits, self.sampling, self.token_ids, self.generator)
        self.token_ids.append(token_id)
        return token_id


def check_inputs(config: DecoderConfig, inputs: ModelInputs) -> None:
    """Refuses a conversation that the model cannot hold.

    Raises:
        InputError: it is empty, or an id is outside the vocabulary.
        CapacityError: it is longer than the context.
    """
    if not inputs.token_ids:
        raise InputError("the prompt is empty: there is nothing to answer")
    outside = [token_id for token_id in inputs.token_ids if not 0 <= token_id < config.vocab_size]
    if outside:
        raise InputError(f"token id {outside[0]} is outside the vocabulary of {config.vocab_size} tokens")
    if len(inputs.token_ids) > config.max_position_embeddings:
        raise CapacityError(
            f"the prompt has {len(inputs.token_ids)} tokens, more than the context of "
            f"{config.max_position_embeddings}; shorten the text, or use fewer or smaller media"
        )
