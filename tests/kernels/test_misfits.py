"""Every native function refuses tensors that it would read wrongly: of another type, with gaps, or not aligned.

A few arguments are no misfits of some of these kinds, since they are copied or read as they stand: the result stays.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from phi4.kernels.adapted import LowRank, multiply_adapted
from phi4.kernels.cached_layers import CachedLayers
from phi4.kernels.elementwise import rms_norm, rotate, swiglu
from phi4.kernels.encoder import Ending, attend, convolve, downsample, layer_norm, project
from phi4.kernels.instructions import LEVELS, NATIVE
from phi4.kernels.linear import multiply
from phi4.kernels.paged_attention import PagedAttention
from phi4.kernels.quantised import PackedWeight, largest_value, multiply_packed
from phi4.kernels.quantised_projection import RoundedRows, project_rounded, round_once
from phi4.kernels.scores import best_scores

pytestmark = pytest.mark.skipif(NATIVE is None, reason="no kernels were compiled here")


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Whole numbers from 1 to 8: every type holds them."""
    return torch.randint(1, 9, shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


halves = partial(numbers, dtype=torch.bfloat16)
signed = partial(numbers, dtype=torch.int8)
unsigned = partial(numbers, dtype=torch.uint8)


def multiply_quantised(
    rows: torch.Tensor, codes: torch.Tensor, steps: torch.Tensor, scales: torch.Tensor
) -> torch.Tensor:
    # Without a level, plain torch takes rows of any kind. The same below.
    return multiply_packed(rows, PackedWeight(codes, steps, scales), LEVELS[0])


def add_low_rank(
    rows: torch.Tensor,
    codes: torch.Tensor,
    scales: torch.Tensor,
    down_codes: torch.Tensor,
    down_scales: torch.Tensor,
    up_codes: torch.Tensor,
    up_scales: torch.Tensor,
) -> torch.Tensor:
    down, up = PackedWeight(down_codes, None, down_scales), PackedWeight(up_codes, None, up_scales)
    return multiply_adapted(rows, PackedWeight(codes, None, scales), [LowRank(1, 3, down, up, 0.5)], LEVELS[0])


def round_rows(rows: torch.Tensor) -> torch.Tensor:
    rounded = round_once(rows, LEVELS[0])
    return rounded.values * rounded.scales.repeat_interleave(128, dim=1)[:, : rounded.values.shape[1]]


def project_bytes(
    values: torch.Tensor,
    scales: torch.Tensor,
    offsets: torch.Tensor,
    codes: torch.Tensor,
    weight_scales: torch.Tensor,
    **others: torch.Tensor,
) -> torch.Tensor:
    rows = RoundedRows(values, scales, offsets, torch.float32, LEVELS[0])
    return project_rounded(rows, PackedWeight(codes, None, weight_scales), **others)


def project_halves(
    rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, residual: torch.Tensor
) -> torch.Tensor:
    return project(rows, weight, Ending(bias, residual=residual))


def attend_to_cache(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    cached_keys: torch.Tensor,
    cached_values: torch.Tensor,
    **scales: torch.Tensor,
) -> torch.Tensor:
    layers = [(scales["key_scales"], scales["value_scales"])] if scales else None
    paged = PagedAttention.of([(2, 3, [(0, 8)])], CachedLayers([cached_keys], [cached_values], layers))
    return paged.attend(0, queries, keys, values)


# What calls each native function, and its tensors.
CALLS: dict[str, tuple[Callable[..., Any], dict[str, torch.Tensor]]] = {
    "multiply": (multiply, {"rows": numbers(3, 8), "weight": numbers(4, 8), "add_to": numbers(3, 4)}),
    "multiply_quantised": (
        multiply_quantised,
        {
            "rows": numbers(3, 64),
            "codes": unsigned(2, 2, 4, 16, 4),
            "steps": unsigned(2, 2, 2, 16),
            "scales": numbers(32),
        },
    ),
    "multiply_quantised, LoRA": (
        add_low_rank,
        {
            "rows": numbers(3, 64),
            "codes": unsigned(2, 2, 8, 16, 4),
            "scales": numbers(32),
            "down_codes": unsigned(2, 2, 8, 16, 4),
            "down_scales": numbers(32),
            "up_codes": unsigned(2, 1, 8, 16, 4),
            "up_scales": numbers(32),
        },
    ),
    "round_rows": (round_rows, {"rows": numbers(3, 64)}),
    "project_rounded": (
        project_bytes,
        {
            "values": signed(3, 64),
            "scales": numbers(3, 1),
            "offsets": numbers(3, 2, dtype=torch.int32),
            "codes": unsigned(2, 2, 8, 16, 4),
            "weight_scales": numbers(32),
            "bias": numbers(32),
            "factors": numbers(3, 32),
            "residual": numbers(3, 32),
            "out": numbers(3, 32),
        },
    ),
    "largest_value": (largest_value, {"steps": unsigned(2, 2, 2, 16)}),
    "rms_norm": (partial(rms_norm, eps=1e-5), {"hidden": numbers(3, 8), "weight": numbers(8)}),
    "swiglu": (swiglu, {"gate_up": numbers(3, 8)}),
    "rotate": (rotate, {"heads": numbers(3, 2, 8), "cos": numbers(3, 1, 4), "sin": numbers(3, 1, 4)}),
    "best_scores": (lambda scores: best_scores(scores, LEVELS[0]), {"scores": numbers(3, 8)}),
    "Conversations": (
        attend_to_cache,
        {
            "queries": numbers(2, 4, 64),
            "keys": numbers(2, 2, 64),
            "values": numbers(2, 2, 64),
            "cached_keys": numbers(2, 8, 64),
            "cached_values": numbers(2, 8, 64),
        },
    ),
    "Conversations, bytes": (
        attend_to_cache,
        {
            "queries": numbers(2, 4, 64),
            "keys": numbers(2, 2, 64),
            "values": numbers(2, 2, 64),
            "cached_keys": signed(2, 8, 64),
            "cached_values": signed(2, 8, 64),
            "key_scales": numbers(2, 8, 2),
            "value_scales": numbers(2, 8, 1),
        },
    ),
}
ENCODER_CALLS: dict[str, tuple[Callable[..., Any], dict[str, torch.Tensor]]] = {
    "project": (
        project_halves,
        {"rows": halves(3, 8), "weight": halves(4, 8), "bias": halves(4), "residual": halves(3, 4)},
    ),
    "attend_fully": (
        attend,
        {
            "queries": halves(2, 3, 4, 8),
            "keys": halves(2, 3, 4, 8),
            "values": halves(2, 3, 4, 8),
            "bias": halves(2, 4, 3, 3),
        },
    ),
    "layer_norm": (partial(layer_norm, eps=1e-5), {"rows": halves(3, 8), "weight": halves(8), "bias": halves(8)}),
    "convolve": (convolve, {"rows": halves(2, 5, 8), "weight": halves(8, 1, 3), "bias": halves(8)}),
    "downsample": (
        partial(downsample, relu=True),
        {"rows": halves(2, 4, 4, 8), "weight": halves(8, 1, 3, 3), "bias": halves(8)},
    ),
}
CALLS |= ENCODER_CALLS

ANOTHER_TYPE = {
    torch.float32: torch.int32,
    torch.bfloat16: torch.float16,
    torch.int32: torch.float32,
    torch.int8: torch.uint8,
    torch.uint8: torch.int8,
}
THE_OTHER_TYPE = {torch.float32: torch.bfloat16, torch.bfloat16: torch.float32}


def with_values_apart(whole: torch.Tensor) -> torch.Tensor:
    return torch.stack((whole, whole + 1), -1)[..., 0]


def with_rows_apart(whole: torch.Tensor) -> torch.Tensor:
    return torch.cat((whole, whole + 1), -1)[..., : whole.shape[-1]]


def behind_one_byte(whole: torch.Tensor) -> torch.Tensor:
    held = bytearray(1) + whole.flatten().view(torch.uint8).numpy().tobytes()
    return torch.frombuffer(held, dtype=whole.dtype, offset=1).view(whole.shape)


SPOILINGS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "another type of this size": lambda whole: whole.to(ANOTHER_TYPE[whole.dtype]),
    "the other type of kernels": lambda whole: whole.to(THE_OTHER_TYPE.get(whole.dtype, whole.dtype)),
    "values apart": with_values_apart,
    "rows apart": with_rows_apart,
    "not aligned": behind_one_byte,
}

# What is no misfit.
TAKEN = {
    "the other type of kernels": {
        ("multiply_quantised", "rows"),
        ("multiply_quantised, LoRA", "rows"),
        ("round_rows", "rows"),
        ("project_rounded", "bias"),
        ("swiglu", "gate_up"),
        ("best_scores", "scores"),
        ("project", "bias"),
    },
    "values apart": {("round_rows", "rows"), ("project_rounded", "bias"), ("project", "bias")},
    "rows apart": {
        ("multiply", "rows"),
        ("multiply", "add_to"),
        ("multiply_quantised", "rows"),
        ("multiply_quantised, LoRA", "rows"),
        ("round_rows", "rows"),
        ("rms_norm", "hidden"),
        ("swiglu", "gate_up"),
        ("best_scores", "scores"),
        ("project", "rows"),
        ("attend_fully", "bias"),
        ("convolve", "weight"),
        ("downsample", "weight"),
    },
}


def is_spoiled(spoiled: torch.Tensor, whole: torch.Tensor) -> bool:
    """Whether a spoiling has done anything: bytes are aligned everywhere, and vectors have no rows."""
    aligned = spoiled.data_ptr() % spoiled.itemsize == 0
    return spoiled.dtype != whole.dtype or not spoiled.is_contiguous() or not aligned


SPOILED = [
    (call, argument, spoiling)
    for call, (_, tensors) in CALLS.items()
    for argument, whole in tensors.items()
    for spoiling, spoil in SPOILINGS.items()
    if is_spoiled(spoil(whole), whole)
]


def run(call: str, **spoiled: torch.Tensor) -> Any:
    """What a native function makes of its tensors, some of them spoiled."""
    if call in ENCODER_CALLS and "avx512_bf16" not in LEVELS:
        pytest.skip("this processor multiplies no bf16")
    function, tensors = CALLS[call]
    return function(**{argument: whole.clone() for argument, whole in tensors.items()} | spoiled)


@pytest.mark.parametrize(("call", "argument", "spoiling"), SPOILED)
def test_tensors_of_other_kinds_are_refused_or_read_rightly(call: str, argument: str, spoiling: str) -> None:
    expected = run(call)
    spoiled = {argument: SPOILINGS[spoiling](CALLS[call][1][argument])}
    if (call, argument) in TAKEN.get(spoiling, ()):
        # bf16 is rounded.
        torch.testing.assert_close(run(call, **spoiled), expected, rtol=2**-7, atol=0, check_dtype=False)
        return
    with pytest.raises(ValueError, match=r"no kernel|tokens do not fit|no steps of 4 bits"):
        run(call, **spoiled)


def test_every_native_function_is_called_here() -> None:
    # What misfits whole layers is in test_decoder_layers.py.
    others = {"levels", "has_head_dim", "DecoderLayers"}
    functions = {name for name in dir(NATIVE) if not name.startswith("_")} - others
    assert functions <= CALLS.keys()
