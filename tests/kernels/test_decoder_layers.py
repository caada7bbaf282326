from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch

from kernels.test_adapted import scaled
from kernels.test_quantised import numbers
from phi4.kernels import elementwise
from phi4.kernels.adapted import LowRank, multiply_adapted
from phi4.kernels.cached_bytes import scale_counts
from phi4.kernels.cached_layers import CachedLayers
from phi4.kernels.decoder_layers import DecoderLayers, LayerLinear, LayerLora, LayerWeights, Run
from phi4.kernels.instructions import LEVELS, NATIVE
from phi4.kernels.linear import multiply
from phi4.kernels.paged_attention import PagedAttention, Part
from phi4.kernels.quantised import PackedWeight

pytestmark = pytest.mark.skipif(NATIVE is None, reason="no kernels were compiled here")

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, INNER, RANK, HALF, SLOTS = 96, 6, 2, 32, 160, 32, 8, 64
FUSED, ATTENDED = (HEADS + 2 * KV_HEADS) * HEAD_DIM, HEADS * HEAD_DIM
# One row, and conversations of which some are new.
STEPS: list[list[Part]] = [
    [(1, 20, [(0, 32)])],
    [(1, 3, [(0, 8)]), (17, 2, [(16, 40)]), (1, 0, [(48, 49)])],
]
# Of two adapters.
RUNS: list[list[Run]] = [[], [("b", 0, 1)], [("a", 1, 9)], [("b", 0, 2), ("a", 2, 19)]]
LAYERS = 2


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
    """Layers, the rows that they get, and the cache that they meet."""

    layers: list[LayerWeights]
    hidden: torch.Tensor
    cos: torch.Tensor
    sin: torch.Tensor
    parts: list[Part]
    cached: list[tuple[torch.Tensor, ...]]
    runs: list[Run]

    def paged(self, level: str) -> PagedAttention:
        """The conversations with a cache of their own."""
        keys, values, *scales = ([part.clone() for part in parts] for parts in zip(*self.cached, strict=True))
        return PagedAttention.of(self.parts, CachedLayers(keys, values, list(zip(*scales, strict=True)) or None), level)  # type: ignore[arg-type]

    def run(self, level: str) -> tuple[torch.Tensor, ...]:
        """What comes out of the one call, and what the cache holds behind it."""
        paged, layers = self.paged(level), DecoderLayers(self.layers)
        hidden = layers.run(len(self.layers), self.hidden, self.cos, self.sin, paged, self.runs)
        return hidden, *paged.stored.keys, *paged.stored.values

    def run_parts(self, level: str) -> tuple[torch.Tensor, ...]:
        """The same by one call for each part of each layer."""
        paged, hidden = self.paged(level), self.hidden
        for index, layer in enumerate(self.layers):
            normed = elementwise.rms_norm(hidden, layer.attention_norm, layer.eps, level)
            heads = project(normed, layer.qkv, self.runs, level).view(len(normed), -1, HEAD_DIM)
            queries, keys, values = heads.split([HEADS, KV_HEADS, KV_HEADS], dim=1)
            elementwise.rotate(heads[:, : HEADS + KV_HEADS], self.cos, self.sin, level)
            attended = paged.attend(index, queries, keys, values)
            hidden = hidden + project(attended, layer.o, self.runs, level)
            normed = elementwise.rms_norm(hidden, layer.mlp_norm, layer.eps, level)
            gated = elementwise.swiglu(project(normed, layer.gate_up, self.runs, level), level)
            hidden = hidden + project(gated, layer.down, self.runs, level)
        return hidden, *paged.stored.keys, *paged.stored.values


def project(rows: torch.Tensor, linear: LayerLinear, runs: list[Run], level: str) -> torch.Tensor:
    """One linear, by one call for each product that is not quantised."""
    low_ranks, full = [], []
    for name, start, stop in runs:
        lora = linear.loras[name]
        if isinstance(lora.down, PackedWeight) and isinstance(lora.up, PackedWeight):
            low_ranks.append(LowRank(start, stop, lora.down, lora.up, lora.scale))
        else:
            full.append((slice(start, stop), lora))
    if isinstance(linear.weight, torch.Tensor):
        output = multiply(rows, linear.weight, level=level)
    else:
        output = multiply_adapted(rows, linear.weight, low_ranks, level)
    for own, lora in full:
        assert isinstance(lora.down, torch.Tensor)
        assert isinstance(lora.up, torch.Tensor)
        multiply(multiply(rows[own], lora.down, level=level) * lora.scale, lora.up, add_to=output[own], level=level)
    return output


def linear(outputs: int, inputs: int, kind: Kind, dtype: torch.dtype = torch.bfloat16) -> LayerLinear:
    """A weight of 4 or 8 bits or of the rows' type, and two LoRAs of 8 bits or of that type."""

    def matrix(outputs: int, inputs: int, bits: int | None) -> PackedWeight | torch.Tensor:
        return numbers(outputs, inputs, dtype=dtype) / 8 if bits is None else scaled(outputs, inputs, bits)

    bits = 8 if kind.quantised_loras else None
    loras = {name: LayerLora(matrix(RANK, inputs, bits), matrix(outputs, RANK, bits), 0.4) for name in ("a", "b")}
    return LayerLinear(matrix(outputs, inputs, kind.bits), loras)


def cache(dtype: torch.dtype, *, of_bytes: bool) -> tuple[torch.Tensor, ...]:
    shape = (KV_HEADS, SLOTS, HEAD_DIM)
    if not of_bytes:
        return torch.randn(shape).to(dtype), torch.randn(shape).to(dtype)
    codes = (torch.randint(-127, 128, shape, dtype=torch.int8) for _ in range(2))
    return *codes, *(torch.rand(*shape[:2], count) / 127 for count in scale_counts(HEAD_DIM))


def make_layer(kind: Kind, dtype: torch.dtype) -> LayerWeights:
    return LayerWeights(
        torch.rand(HIDDEN).to(dtype),
        linear(FUSED, HIDDEN, kind, dtype),
        linear(HIDDEN, ATTENDED, kind, dtype),
        torch.rand(HIDDEN).to(dtype),
        linear(2 * INNER, HIDDEN, kind, dtype),
        linear(HIDDEN, INNER, kind, dtype),
        1e-5,
    )


def make_case(
    dtype: torch.dtype, parts: list[Part], runs: list[Run], kind: Kind = QUANTISED, *, of_bytes: bool = False
) -> Case:
    torch.manual_seed(3)
    tokens = sum(length for length, *_ in parts)
    layers = [make_layer(kind, dtype) for _ in range(LAYERS)]
    angles = torch.rand(tokens, 1, HALF)
    rows = numbers(tokens, HIDDEN, dtype=dtype)
    caches = [cache(dtype, of_bytes=of_bytes) for _ in range(LAYERS)]
    return Case(layers, rows, angles.cos().to(dtype), angles.sin().to(dtype), parts, caches, runs)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("of_bytes", [False, True])
@pytest.mark.parametrize("parts", STEPS)
@pytest.mark.parametrize("kind", KINDS)
def test_one_call_gives_the_bits_of_its_parts(
    any_threads: None, level: str, dtype: torch.dtype, of_bytes: bool, parts: list[Part], kind: Kind
) -> None:
    tokens = sum(length for length, *_ in parts)
    for runs in RUNS:
        if runs and runs[-1][2] > tokens:
            continue
        case = make_case(dtype, parts, runs, kind, of_bytes=of_bytes)
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
    "a norm of another width": lambda case: with_part(case, mlp_norm=case.layers[0].mlp_norm[1:]),
    "a norm of another type": lambda case: with_part(case, attention_norm=case.layers[0].attention_norm.float()),
    "a projection of fewer heads": lambda case: with_part(case, qkv=linear(FUSED - HEAD_DIM, HIDDEN, QUANTISED)),
    "an output projection of another width": lambda case: with_part(case, o=linear(HIDDEN + 16, ATTENDED, QUANTISED)),
    "more heads than the projection gives": lambda case: with_part(
        case, o=linear(HIDDEN, ATTENDED + KV_HEADS * HEAD_DIM, QUANTISED)
    ),
    "half a gate": lambda case: with_part(case, gate_up=linear(INNER, HIDDEN, QUANTISED)),
    "a weight of another type": lambda case: with_part(case, down=linear(HIDDEN, INNER, FULL, torch.float32)),
    "a weight with gaps": lambda case: with_part(
        case, down=LayerLinear(numbers(HIDDEN, 2 * INNER, dtype=torch.bfloat16)[:, ::2], {})
    ),
    "a LoRA of another type": lambda case: with_loras(case, linear(HIDDEN, INNER, FULL, torch.float32)),
    "a LoRA of another rank than its own": lambda case: with_loras(
        case, LayerLinear(case.layers[0].down.weight, dict.fromkeys("ab", LayerLora(*halves(RANK, RANK - 16), 1.0)))
    ),
    "a LoRA of 8 bits on a weight that is not quantised": lambda case: with_part(
        case, down=replace(linear(HIDDEN, INNER, FULL), loras=case.layers[0].down.loras)
    ),
    "a linear without the adapters of the others": lambda case: with_part(case, o=replace(case.layers[0].o, loras={})),
    "a second layer without them": lambda case: replace(
        case,
        layers=[
            case.layers[0],
            replace(case.layers[1], **{name: replace(getattr(case.layers[1], name), loras={}) for name in LINEARS}),
        ],
    ),
    "a second layer that is narrower inside": lambda case: replace(
        case,
        layers=[
            case.layers[0],
            replace(
                case.layers[1],
                gate_up=linear(2 * (INNER - 32), HIDDEN, QUANTISED),
                down=linear(HIDDEN, INNER - 32, QUANTISED),
            ),
        ],
    ),
    "an adapter that there is not": lambda case: replace(case, runs=[("c", 0, 1)]),
    "an adapter behind the rows": lambda case: replace(case, runs=[("a", 3, 99)]),
    "an adapter before the rows": lambda case: replace(case, runs=[("a", -1, 3)]),
    "two adapters on a row": lambda case: replace(case, runs=[("a", 0, 3), ("b", 2, 4)]),
    "an adapter on no row": lambda case: replace(case, runs=[("a", 3, 3)]),
    "more layers than the cache has": lambda case: replace(case, cached=case.cached[:1]),
    "a cache of another type": lambda case: with_cache(case, lambda part: part.float()),
    "a cache that is too small": lambda case: with_cache(case, lambda part: part[:, :32].contiguous()),
    "a second cache that is smaller": lambda case: replace(
        case, cached=[case.cached[0], tuple(part[:, :56].contiguous() for part in case.cached[1])]
    ),
}
LINEARS = ("qkv", "o", "gate_up", "down")


def halves(rank: int, other_rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    return numbers(rank, INNER, dtype=torch.bfloat16), numbers(HIDDEN, other_rank, dtype=torch.bfloat16)


def with_part(case: Case, **part: torch.Tensor | LayerLinear) -> Case:
    return replace(case, layers=[replace(layer, **part) for layer in case.layers])  # type: ignore[arg-type]


def with_loras(case: Case, other: LayerLinear) -> Case:
    """With those of another linear for the last one."""
    return with_part(case, down=replace(case.layers[0].down, loras=other.loras))


def with_cache(case: Case, change: Callable[[torch.Tensor], torch.Tensor]) -> Case:
    return replace(case, cached=[tuple(change(part) for part in parts) for parts in case.cached])


@pytest.mark.parametrize("misfit", MISFITS)
def test_what_does_not_fit_is_refused(misfit: str) -> None:
    case = MISFITS[misfit](make_case(torch.bfloat16, STEPS[1], []))
    with pytest.raises(ValueError, match="no kernel runs 2 of 2 layers of"):
        case.run(LEVELS[0])
