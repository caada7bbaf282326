from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional

from kernels.conftest import not_aligned
from phi4.kernels.encoder import Activation, Ending, attend, can_encode, convolve, downsample, layer_norm, project
from phi4.kernels.instructions import LEVELS

pytestmark = pytest.mark.skipif("avx512_bf16" not in LEVELS, reason="this processor multiplies no bf16")

ERROR = 2**-7
ACTIVATIONS: dict[Activation, Callable[[torch.Tensor], torch.Tensor]] = {
    "none": lambda x: x,
    "gelu": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
    "relu": functional.relu,
}


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).bfloat16()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("residual", [False, True])
# Whole tiles and rests of rows, outputs and inputs.
@pytest.mark.parametrize(("tokens", "outputs", "inputs"), [(1, 1, 2), (13, 70, 98), (1550, 33, 64), (6, 128, 32)])
def test_a_projection_agrees_with_exact_sums(
    activation: Activation, gated: bool, residual: bool, tokens: int, outputs: int, inputs: int
) -> None:
    rows = numbers(tokens, inputs)
    weight, bias = numbers(outputs * (1 + gated), inputs), numbers(outputs * (1 + gated))
    start = numbers(tokens, outputs) if residual else None
    sums = rows.double() @ weight.double().T + bias.double()
    if gated:
        values, gates = sums.chunk(2, dim=-1)
        exact = values * ACTIVATIONS[activation](gates)
    else:
        exact = ACTIVATIONS[activation](sums)
    exact = 0.5 * exact + (0 if start is None else start.double())
    found = project(rows, weight, Ending(bias, activation, gated, 0.5, start))
    torch.testing.assert_close(found.double(), exact, rtol=ERROR, atol=ERROR)


def test_rows_of_a_wider_matrix_are_projected_where_they_are() -> None:
    wide, weight, bias = numbers(9, 96), numbers(20, 32), numbers(20)
    ending = Ending(bias)
    assert torch.equal(project(wide[:, 32:64], weight, ending), project(wide[:, 32:64].clone(), weight, ending))


@pytest.mark.parametrize("extreme", [0.0, 100.0, -100.0, 3e38, -3e38, torch.inf, torch.nan])
@pytest.mark.parametrize("activation", ["gelu", "silu", "relu"])
def test_extreme_sums_give_what_torch_gives(activation: Activation, extreme: float) -> None:
    bias = torch.tensor([extreme]).bfloat16()
    found = project(torch.zeros(1, 2).bfloat16(), torch.zeros(1, 2).bfloat16(), Ending(bias, activation))
    expected = ACTIVATIONS[activation](bias[None].double()).bfloat16()
    torch.testing.assert_close(found, expected, equal_nan=True, rtol=ERROR, atol=1e-30)


def heads(sequences: int, length: int, num_heads: int, head_dim: int) -> list[torch.Tensor]:
    """Queries, keys and values of one projection."""
    fused = numbers(sequences, length, 3 * num_heads * head_dim)
    return [part.unflatten(-1, (num_heads, head_dim)) for part in fused.chunk(3, dim=-1)]


@pytest.mark.parametrize("head_dim", [2, 16, 64, 72, 128])
@pytest.mark.parametrize(("sequences", "length"), [(1, 1), (2, 65), (1, 130)])
@pytest.mark.parametrize(
    "bias_shape", [None, (1, 3, -1, -1), (-1, 1, 1, -1), (-1, 3, -1, -1), (1, 3, -1, 1), (1, 1, 1, 1)]
)
def test_attention_agrees_with_torch(
    head_dim: int, sequences: int, length: int, bias_shape: tuple[int, ...] | None
) -> None:
    parts = heads(sequences, length, 3, head_dim)
    bias = None
    if bias_shape is not None:
        full = (sequences, 3, length, length)
        bias = numbers(*(own if wanted == -1 else wanted for own, wanted in zip(full, bias_shape, strict=True)))
    queries, keys, values = (part.transpose(1, 2).double() for part in parts)
    expected = functional.scaled_dot_product_attention(
        queries, keys, values, None if bias is None else bias.double().expand(sequences, 3, length, length)
    )
    torch.testing.assert_close(attend(*parts, bias).transpose(1, 2).double(), expected, rtol=ERROR, atol=ERROR)


def test_company_and_hidden_keys_change_no_bit() -> None:
    queries, keys, values = heads(3, 70, 2, 24)
    bias = torch.zeros(3, 1, 1, 70).bfloat16()
    bias[1, ..., 41:] = -torch.inf
    together = attend(queries, keys, values, bias)
    for number, length in enumerate((70, 41, 70)):
        own = [part[number : number + 1, :length].clone() for part in (queries, keys, values)]
        assert torch.equal(attend(*own, None)[0], together[number, :length])


def test_neighbours_change_no_bit() -> None:
    rows, weight, ending = numbers(40, 64), numbers(90, 64), Ending(numbers(90), "gelu")
    whole = project(rows, weight, ending)
    for first, last in ((0, 1), (3, 17), (39, 40)):
        assert torch.equal(project(rows[first:last], weight, ending), whole[first:last])


def test_threads_change_no_bit() -> None:
    rows, weight, bias, parts = numbers(40, 64), numbers(300, 64), numbers(300), heads(2, 30, 4, 16)
    threads = torch.get_num_threads()
    found = []
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        found.append((project(rows, weight, Ending(bias)), attend(*parts, None)))
    torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for some in found[1:] for one, other in zip(found[0], some, strict=True))


@pytest.mark.parametrize("width", [1, 40, 1152])
def test_a_norm_agrees_with_torch(width: int) -> None:
    rows, weight, bias = 3 + 5 * numbers(2, 7, width), numbers(width), numbers(width)
    exact = functional.layer_norm(rows.double(), (width,), weight.double(), bias.double(), 1e-5)
    torch.testing.assert_close(layer_norm(rows, weight, bias, 1e-5).double(), exact, rtol=ERROR, atol=ERROR)


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_a_convolution_sees_what_came_before(kernel_size: int) -> None:
    rows, weight, bias = numbers(2, 9, 40), numbers(40, 1, kernel_size), numbers(40)
    padded = functional.pad(rows.double().transpose(1, 2), (kernel_size - 1, 0))
    exact = functional.conv1d(padded, weight.double(), bias.double(), groups=40).transpose(1, 2)
    torch.testing.assert_close(convolve(rows, weight, bias).double(), exact, rtol=ERROR, atol=ERROR)


@pytest.mark.parametrize("channels", [1, 40])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(("frames", "mels"), [(1, 1), (8, 6), (9, 5)])
def test_downsampling_agrees_with_torch(channels: int, relu: bool, frames: int, mels: int) -> None:
    rows, weight, bias = numbers(2, frames, mels, channels), numbers(40, 1, 3, 3), numbers(40)
    planes = functional.conv2d(
        rows.permute(0, 3, 1, 2).double(), weight.double(), bias.double(), stride=2, padding=1, groups=channels
    )
    exact = (planes.relu() if relu else planes).permute(0, 2, 3, 1)
    torch.testing.assert_close(downsample(rows, weight, bias, relu).double(), exact, rtol=ERROR, atol=ERROR)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (layer_norm, [(2, 4), (3,), (3,)], "normalises"),
        (convolve, [(1, 2, 4), (4, 2, 3), (4,)], "convolves"),
        (downsample, [(1, 2, 4, 3), (4, 1, 3, 3), (4,)], "downsamples"),
        (attend, [(1, 2, 3, 4), (1, 2, 3, 4), (1, 3, 3, 4)], "attends"),
        (attend, [(1, 2, 3, 5), (1, 2, 3, 5), (1, 2, 3, 5)], "attends"),
        (layer_norm, [(2, 0), (0,), (0,)], "normalises"),
        (layer_norm, [(), (), ()], "normalises"),
        (convolve, [(2, 4), (4, 1, 3), (4,)], "convolves"),
        (downsample, [(2, 4, 1), (4, 1, 3, 3), (4,)], "downsamples"),
        (attend, [(2, 3, 4), (2, 3, 4), (2, 3, 4)], "attends"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(function: Any, arguments: list[tuple[int, ...]], message: str) -> None:
    last = {"layer_norm": [1e-5], "attend": [None], "downsample": [False]}.get(function.__name__, [])
    with pytest.raises(ValueError, match=message):
        function(*(numbers(*shape) for shape in arguments), *last)


@pytest.mark.parametrize(
    ("rows", "weight", "outputs"),
    [((2, 4), (3, 6), 3), ((2, 3), (4, 3), 4), ((2, 4), (3, 4), 4), ((4,), (3, 4), 3), ((2, 4), (4,), 4)],
)
def test_a_projection_of_other_shapes_is_refused(rows: tuple[int, ...], weight: tuple[int, ...], outputs: int) -> None:
    with pytest.raises(ValueError, match="projects"):
        project(numbers(*rows), numbers(*weight), Ending(numbers(outputs)))


def test_a_bias_that_does_not_fit_is_refused() -> None:
    rows, weight = numbers(2, 4), numbers(6, 4)
    for bias in (numbers(3), torch.ones(6, device="meta"), torch.ones(6, dtype=torch.complex64), not_aligned(6)):
        with pytest.raises(ValueError, match="projects"):
            project(rows, weight, Ending(bias))
    parts = heads(2, 5, 3, 16)
    for shape in ((5, 4), (3, 1, 1, 5), (1, 1, 1, 1, 5)):
        with pytest.raises(ValueError, match=r"adds .* to the scores of \(2, 5, 3, 16\)"):
            attend(*parts, numbers(*shape))


def test_residuals_gates_and_activations_that_do_not_fit_are_refused() -> None:
    rows, weight, bias = numbers(2, 4), numbers(6, 4), numbers(6)
    for residual in (numbers(2, 5), numbers(1, 6), numbers(6, 2).T.contiguous().T):
        with pytest.raises(ValueError, match="no kernel"):
            project(rows, weight, Ending(bias, residual=residual))
    with pytest.raises(ValueError, match="gates: True"):
        project(rows, numbers(5, 4), Ending(numbers(5), gated=True))
    with pytest.raises(ValueError, match="tanh"):
        project(rows, weight, Ending(bias, "tanh"))  # type: ignore[arg-type]


def test_rows_and_sequences_may_be_none() -> None:
    assert project(numbers(0, 4), numbers(6, 4), Ending(numbers(6))).shape == (0, 6)
    assert convolve(numbers(0, 3, 4), numbers(4, 1, 3), numbers(4)).shape == (0, 3, 4)
    assert downsample(numbers(1, 0, 4, 1), numbers(4, 1, 3, 3), numbers(4), relu=True).shape == (1, 0, 2, 4)


def test_gradients_and_other_types_are_left_to_torch() -> None:
    assert can_encode(numbers(1, 2))
    assert not can_encode(numbers(1, 2).float())
    with torch.inference_mode(False), torch.enable_grad():
        assert not can_encode(numbers(1, 2))
