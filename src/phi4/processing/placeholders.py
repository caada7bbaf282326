"""Places media: each placeholder token becomes as many as its medium takes."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch

from phi4.errors import CapacityError, ConfigError, InputError
from phi4.inputs import Medium, ModelInputs


@dataclass(frozen=True)
class MediaProcessor:
    """The processor of one modality.

    Attributes:
        modality: its name, "vision" and "speech" in the release.
        noun: what users call its media, "image" or "audio"; also the name in `<|image_1|>`.
        token_id: id of its placeholder.
        prepare: turns a source (path, bytes, ...) into what the encoder takes.
        count_tokens: says how many placeholders that takes.
    """

    modality: str
    noun: str
    token_id: int
    prepare: Callable[[Any], Any]
    count_tokens: Callable[[Any], int]


def expand_placeholders(
    token_ids: Sequence[int],
    processors: Sequence[MediaProcessor],
    sources: Mapping[str, Sequence[Any]],
    max_tokens: int,
) -> ModelInputs:
    """Repeats each placeholder as often as its medium takes tokens. Media are matched by order (facts sheet 3.3).

    Media are prepared one after the other, and no further than the context lasts: a picture may take 90 MB.

    Args:
        token_ids: with one placeholder for each medium.
        processors: one for each modality that the model has.
        sources: media of each modality, by its name, in the order in which their placeholders occur.
        max_tokens: length of the model's context.

    Raises:
        InputError: there are more or fewer media than placeholders, media of a modality that the model lacks, or a
            medium that cannot be used.
        CapacityError: the prompt is longer than the context, or a medium is too large.
    """
    _check_counts(token_ids, processors, sources)
    _check_length(len(token_ids), max_tokens)
    by_token = {processor.token_id: processor for processor in processors}
    waiting = {modality: iter(enumerate(given, start=1)) for modality, given in sources.items()}
    expanded: list[int] = []
    media: list[Medium] = []
    for position, token_id in enumerate(token_ids):
        processor = by_token.get(token_id)
        if processor is None:
            expanded.append(token_id)
            continue
        number, source = next(waiting[processor.modality])
        medium = _prepare(processor, source, number, start=len(expanded))
        expanded.extend([token_id] * medium.num_tokens)
        _check_length(len(expanded) + len(token_ids) - position - 1, max_tokens)
        media.append(medium)
    return ModelInputs(token_ids=tuple(expanded), media=tuple(media))


def lacking_modality(modality: str) -> InputError:
    """The error for a medium that the model has no encoder for."""
    return InputError(
        f"a medium for {modality} is given, which this model does not have; take a multimodal model, or add a pack"
    )


def digest_data(data: Any) -> str:
    """SHA-256 of one medium's data, hexadecimal: of types, shapes and values.

    Args:
        data: a tensor, or a dataclass whose fields are tensors and plain values.

    Raises:
        ConfigError: it is or holds something else, of which nobody can say whether two are equal.
    """
    digest = hashlib.sha256()
    for value in [getattr(data, field.name) for field in fields(data)] if is_dataclass(data) else [data]:
        if isinstance(value, torch.Tensor):
            digest.update(f"{value.dtype}{list(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        elif value is None or isinstance(value, bool | int | float | str):
            digest.update(f"{value!r};".encode())
        else:
            raise ConfigError(
                f"data of a medium must be a tensor or a dataclass of tensors and plain values, not {type(value)}"
            )
    return digest.hexdigest()


def _check_counts(
    token_ids: Sequence[int], processors: Sequence[MediaProcessor], sources: Mapping[str, Sequence[Any]]
) -> None:
    modalities = {processor.modality for processor in processors}
    for modality, given in sources.items():
        if given and modality not in modalities:
            raise lacking_modality(modality)
    for processor in processors:
        num_placeholders = token_ids.count(processor.token_id)
        num_media = len(sources.get(processor.modality, ()))
        if num_placeholders != num_media:
            raise InputError(
                f"{processor.noun}: the prompt has {num_placeholders} placeholders, but {num_media} media are given; "
                "there must be one placeholder for each"
            )


def _check_length(num_tokens: int, max_tokens: int) -> None:
    if num_tokens > max_tokens:
        raise CapacityError(
            f"the prompt has at least {num_tokens} tokens, more than the context of {max_tokens}; "
            "shorten the text, or use fewer or smaller media"
        )


def _prepare(processor: MediaProcessor, source: Any, number: int, start: int) -> Medium:
    try:
        data = processor.prepare(source)
    except (InputError, CapacityError) as error:
        raise type(error)(f"{processor.noun} {number}: {error}") from error
    return Medium(
        modality=processor.modality,
        data=data,
        start=start,
        num_tokens=processor.count_tokens(data),
        digest=digest_data(data),
    )
