"""Lays examples end to end for one forward pass; what several of them begin with is computed once."""

from collections.abc import Sequence
from dataclasses import dataclass

from phi4.data.example import Example
from phi4.inputs import Medium, Rotary
from phi4.model.decoder import Phi4Mini
from phi4.model.multimodal import Phi4Multimodal
from phi4.model.step import Segment, rotary_for

# A shared beginning costs a few small copies in every layer; shorter ones are not worth it.
MIN_SHARED_TOKENS = 8


@dataclass(frozen=True)
class PlacedMedium:
    """A medium and the packed row of its first placeholder."""

    medium: Medium
    adapter: str | None
    row: int


@dataclass(frozen=True)
class PackedLayout:
    """Packed tokens of some examples.

    Attributes:
        token_ids: of all segments, end to end.
        segments: beginnings that are shared, each before the examples that go on from it.
        output_rows: packed rows whose next token is scored.
        targets: those next tokens.
        media: where features replace placeholders.
        examples: in the order in which their targets stand above.
    """

    token_ids: list[int]
    segments: list[Segment]
    output_rows: list[int]
    targets: list[int]
    media: list[PlacedMedium]
    examples: list[Example]


def lay_out(model: Phi4Mini | Phi4Multimodal, examples: Sequence[Example]) -> PackedLayout:
    """Plans the pass. Examples share a beginning if adapter and rotary table are the same too."""
    layout = PackedLayout([], [], [], [], [], [])
    groups: dict[tuple[str | None, Rotary], list[Example]] = {}
    for example in examples:
        adapter = model.adapter_for(example.inputs.modalities)
        rotary = rotary_for(model.decoder_config, len(example.inputs.token_ids))
        groups.setdefault((adapter, rotary), []).append(example)
    for (adapter, rotary), members in groups.items():
        shared = count_shared_tokens(members)
        prefix = None
        if shared:
            prefix = len(layout.segments)
            layout.token_ids.extend(members[0].inputs.token_ids[:shared])
            layout.segments.append(Segment(shared, adapter=adapter, rotary=rotary))
        for example in members:
            own = len(example.inputs.token_ids) - shared
            _append(layout, example, Segment(own, cached=shared, adapter=adapter, rotary=rotary, prefix=prefix))
    return layout


def _append(layout: PackedLayout, example: Example, segment: Segment) -> None:
    """Adds what an example has behind the shared beginning."""
    offset = len(layout.token_ids) - segment.cached
    layout.token_ids.extend(example.inputs.token_ids[segment.cached :])
    layout.segments.append(segment)
    layout.output_rows.extend(offset + row for row in example.output_rows)
    layout.targets.extend(example.targets)
    media = (PlacedMedium(medium, segment.adapter, offset + medium.start) for medium in example.inputs.media)
    layout.media.extend(media)
    layout.examples.append(example)


def count_shared_tokens(examples: Sequence[Example]) -> int:
    """How many tokens all examples begin with, before any medium and any token that is learnt; 0 if too few."""
    if len(examples) < 2:
        return 0
    limit = min(
        min([example.output_rows[0], *(medium.start for medium in example.inputs.media)]) for example in examples
    )
    columns = zip(*(example.inputs.token_ids[:limit] for example in examples), strict=True)
    shared = next((place for place, tokens in enumerate(columns) if len(set(tokens)) > 1), limit)
    return shared if shared >= MIN_SHARED_TOKENS else 0
