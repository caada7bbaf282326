from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch

from kernels.test_adapted import scaled
from kernels.test_quantised import numbers
from phi4.kernels import elementwise
from phi4.kernels.adapted import LowRank, multiply_adapted
from phi4.kernels.cached_bytes import scale_counts
from phi4.kernels.decoder_layer import FullLowRank, LayerLinear, LayerWeights, run_layer
from phi4.kernels.instructions import LEVELS, NATIVE
from phi4.kernels.linear import multiply
from phi4.kernels.paged_attention import PagedAttention, Part

pytestmark = pytest.mark.skipif(NATIVE is None, reason="no kernels were compiled here")

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, INNER, RANK, HALF, SLOTS = 96, 6, 2, 32, 160, 32, 8, 64
FUSED, ATTENDED = (HEADS + 2 * KV_HEADS) * HEAD_DIM, HEADS * HEAD_DIM
# One row, and conversations of which some are new.
STEPS: list[list[Part]] = [
    [(1, 20, [(0, 32)])],
    [(1, 3, [(0, 8)]), (17, 2, [(16, 40)]), (1, 0, [(48, 49)])],
]
Places = list[tuple[int, int]]
LORAS: list[Places] = [[], [(0, 1)], [(1, 9)], [(0, 2), (2, 19)]]


@dataclass(frozen=True)
class Kind:
    """How weights are stored: with so many bits, or None for those of the rows' type; and LoRAs."""

    bits: int | None
    quantised_loras: bool


QUANTISED = Kind(4, True)
FULL = Kind(None, False)
KINDS = [QUANTISED, Kind(8, True), Kind(4, False), FULL]


@dataclass(frozen=True)
class Case:
    """A layer, the rows that it gets, and the cache that they meet."""

    layer: LayerWeights
    hidden: torch.Tensor
    cos: torch.Tensor
    sin: torch.Tensor
    parts: list[Part]
    cached: tuple[torch.Tensor, ...]

    def paged(self, level: str) -> PagedAttention:
        """The conversations with a cache of their own."""
        keys, values, *scales = (part.clone() for part in self.cached)
        return PagedAttention.of(self.parts, [keys], [values], [(scales[0], scales[1])] if scales else None, level)

    def run(self, level: str) -> tuple[torch.Tensor, ...]:
        """What comes out of the one call, and what the cache holds behind it."""
        paged = self.paged(level)
        return run_layer(self.layer, 0, self.hidden, self.cos, self.sin, paged), paged.keys[0], paged.values[0]

    def run_parts(self, level: str) -> tuple[torch.Tensor, ...]:
        """The same by one call for each part of the layer."""
        paged, layer = self.paged(level), self.layer
        normed = elementwise.rms_norm(self.hidden, layer.attention_norm, layer.eps, level)
        heads = project(normed, layer.qkv, level).view(len(normed), -1, HEAD_DIM)
        queries, keys, values = heads.split([HEADS, KV_HEADS, KV_HEADS], dim=1)
        elementwise.rotate(heads[:, : HEADS + KV_HEADS], self.cos, self.sin, level)
        attended = paged.attend(0, queries, keys, values)
        hidden = self.hidden + project(attended, layer.o, level)
        normed = elementwise.rms_norm(hidden, layer.mlp_norm, layer.eps, level)
        gated = elementwise.swiglu(project(normed, layer.gate_up, level), level)
        hidden = hidden + project(gated, layer.down, level)
        return hidden, paged.keys[0], paged.values[0]


def project(rows: torch.Tensor, linear: LayerLinear, level: str) -> torch.Tensor:
    """One linear, by one call for each product that is not quantised."""
    if isinstance(linear.weight, torch.Tensor):
        output = multiply(rows, linear.weight, level=level)
    else:
        output = multiply_adapted(rows, linear.weight, linear.quantised, level)
    for lora in linear.full:
        low = multiply(rows[lora.start : lora.stop], lora.down, level=level) * lora.scale
        multiply(low, lora.up, add_to=output[lora.start : lora.stop], level=level)
    return output


def linear(outputs: int, inputs: int, kind: Kind, places: Places, dtype: torch.dtype = torch.bfloat16) -> LayerLinear:
    """A weight of 4 or 8 bits or of the rows' type, and LoRAs of 8 bits or of that type for some rows."""
    down, up = scaled(RANK, inputs, 8), scaled(outputs, RANK, 8)
    quantised = [LowRank(start, stop, down, up, 0.5) for start, stop in places if kind.quantised_loras]
    full_down, full_up = numbers(RANK, inputs, dtype=dtype) / 8, numbers(outputs, RANK, dtype=dtype) / 8
    full = [FullLowRank(start, stop, full_down, full_up, 0.3) for start, stop in places if not kind.quantised_loras]
    if kind.bits is None:
        return LayerLinear(numbers(outputs, inputs, dtype=dtype) / 8, quantised, full)
    return LayerLinear(scaled(outputs, inputs, kind.bits), quantised, full)


def cache(dtype: torch.dtype, *, of_bytes: bool) -> tuple[torch.Tensor, ...]:
    shape = (KV_HEADS, SLOTS, HEAD_DIM)
    if not of_bytes:
        return torch.randn(shape).to(dtype), torch.randn(shape).to(dtype)
    codes = (torch.randint(-127, 128, shape, dtype=torch.int8) for _ in range(2))
    return *codes, *(torch.rand(*shape[:2], count) / 127 for count in scale_counts(HEAD_DIM))


def make_case(
    dtype: torch.dtype, parts: list[Part], places: Places, kind: Kind = QUANTISED, *, of_bytes: bool = False
) -> Case:
    torch.manual_seed(3)
    tokens = sum(length for length, *_ in parts)
    layer = LayerWeights(
        torch.rand(HIDDEN).to(dtype),
        linear(FUSED, HIDDEN, kind, places, dtype),
        linear(HIDDEN, ATTENDED, kind, places, dtype),
        torch.rand(HIDDEN).to(dtype),
        linear(2 * INNER, HIDDEN, kind, places, dtype),
        linear(HIDDEN, INNER, kind, places, dtype),
        1e-5,
    )
    angles = torch.rand(tokens, 1, HALF)
    rows = numbers(tokens, HIDDEN, dtype=dtype)
    return Case(layer, rows, angles.cos().to(dtype), angles.sin().to(dtype), parts, cache(dtype, of_bytes=of_bytes))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("of_bytes", [False, True])
@pytest.mark.parametrize("parts", STEPS)
@pytest.mark.parametrize("kind", KINDS)
def test_one_call_gives_the_bits_of_its_parts(
    any_threads: None, level: str, dtype: torch.dtype, of_bytes: bool, parts: list[Part], kind: Kind
) -> None:
    tokens = sum(length for length, *_ in parts)
    for places in LORAS:
        if places and places[-1][1] > tokens:
            continue
        case = make_case(dtype, parts, places, kind, of_bytes=of_bytes)
        expected = case.run_parts(level)
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert all(torch.equal(own, other) for own, other in zip(case.run(level), expected, strict=True))


def test_rows_that_stand_apart_are_read_and_left_alone() -> None:
    case = make_case(torch.bfloat16, STEPS[1], [])
    wide = torch.full((len(case.hidden), HIDDEN + 7), torch.nan, dtype=torch.bfloat16)
    wide[:, :HIDDEN] = case.hidden
    apart = replace(case, hidden=wide[:, :HIDDEN])
    assert torch.equal(apart.run(LEVELS[0])[0], case.run(LEVELS[0])[0])
    assert torch.equal(wide[:, :HIDDEN], case.hidden)


MISFITS: dict[str, Callable[[Case], Case]] = {
    "fewer rows than the step has": lambda case: replace(case, hidden=case.hidden[1:]),
    "rows of another width": lambda case: replace(case, hidden=case.hidden[:, :-16]),
    "rows of another type": lambda case: replace(case, hidden=case.hidden.float()),
    "one row": lambda case: replace(case, hidden=case.hidden[0]),
    "angles of fewer rows": lambda case: replace(case, cos=case.cos[1:], sin=case.sin[1:]),
    "angles of too many dimensions": lambda case: replace(
        case, cos=torch.ones(19, 1, HEAD_DIM).bfloat16(), sin=torch.ones(19, 1, HEAD_DIM).bfloat16()
    ),
    "angles with gaps": lambda case: replace(case, cos=case.cos.repeat(1, 1, 2)[..., ::2]),
    "a norm of another width": lambda case: with_part(case, mlp_norm=case.layer.mlp_norm[1:]),
    "a norm of another type": lambda case: with_part(case, attention_norm=case.layer.attention_norm.float()),
    "a projection of fewer heads": lambda case: with_part(case, qkv=linear(FUSED - HEAD_DIM, HIDDEN, QUANTISED, [])),
    "an output projection of another width": lambda case: with_part(
        case, o=linear(HIDDEN + 16, ATTENDED, QUANTISED, [])
    ),
    "more heads than the projection gives": lambda case: with_part(
        case, o=linear(HIDDEN, ATTENDED + KV_HEADS * HEAD_DIM, QUANTISED, [])
    ),
    "half a gate": lambda case: with_part(case, gate_up=linear(INNER, HIDDEN, QUANTISED, [])),
    "a weight of another type": lambda case: with_part(case, down=linear(HIDDEN, INNER, FULL, [], torch.float32)),
    "a LoRA of another type": lambda case: with_part(
        case, down=replace(case.layer.down, full=linear(HIDDEN, INNER, FULL, [(0, 1)], torch.float32).full)
    ),
    "a LoRA of another rank than its own": lambda case: with_part(
        case, down=replace(case.layer.down, full=[FullLowRank(0, 1, *halves(RANK, RANK - 16), 1.0)])
    ),
    "a LoRA of 8 bits on a weight that is not quantised": lambda case: with_part(
        case,
        down=replace(linear(HIDDEN, INNER, FULL, []), quantised=linear(HIDDEN, INNER, QUANTISED, [(0, 1)]).quantised),
    ),
    "a LoRA behind the rows": lambda case: with_part(case, down=linear(HIDDEN, INNER, QUANTISED, [(3, 99)])),
    "a cache of another type": lambda case: replace(case, cached=tuple(part.float() for part in case.cached)),
    "a cache that is too small": lambda case: replace(case, cached=tuple(part[:, :32] for part in case.cached)),
}


def halves(rank: int, other_rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    return numbers(rank, INNER, dtype=torch.bfloat16), numbers(HIDDEN, other_rank, dtype=torch.bfloat16)


def with_part(case: Case, **part: torch.Tensor | LayerLinear) -> Case:
    return replace(case, layer=replace(case.layer, **part))  # type: ignore[arg-type]


@pytest.mark.parametrize("misfit", MISFITS)
def test_what_does_not_fit_is_refused(misfit: str) -> None:
    case = MISFITS[misfit](make_case(torch.bfloat16, STEPS[1], []))
    with pytest.raises(ValueError, match="no kernel runs a layer of"):
        case.run(LEVELS[0])
