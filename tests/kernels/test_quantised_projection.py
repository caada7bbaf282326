from dataclasses import replace
from typing import Any

import pytest
import torch

from kernels.conftest import not_aligned
from phi4.checkpoint.rounding import round_weight
from phi4.kernels.encoder import ACTIVATIONS, Activation
from phi4.kernels.instructions import LEVELS
from phi4.kernels.quantised import PackedWeight
from phi4.kernels.quantised_projection import (
    RoundedRows,
    padded,
    project_in_torch,
    project_rounded,
    round_in_torch,
    round_once,
)

# Outputs and inputs: one block and a part of a group, odd numbers of both, several chunks of groups and a rest.
SHAPES = [(16, 2), (48, 80), (80, 1070)]


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def packed(outputs: int, inputs: int) -> PackedWeight:
    weight = numbers(outputs, inputs) / inputs**0.5
    return round_weight(torch.nn.functional.pad(weight, (0, padded(inputs) - inputs)), 8)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_every_level_gives_the_bits_of_plain_torch_for_any_number_of_rows_and_threads(
    any_threads: None, level: str, dtype: torch.dtype, outputs: int, inputs: int
) -> None:
    rows, weight, bias = 3 * numbers(70, inputs, dtype=dtype), packed(outputs, inputs), numbers(outputs)
    others = {"factors": numbers(70, outputs, dtype=dtype), "residual": numbers(71, outputs, dtype=dtype)[1:]}
    for activation, own_bias in (*((activation, bias) for activation in ACTIVATIONS), (ACTIVATIONS[-1], None)):
        expected = project_in_torch(round_in_torch(rows), weight, own_bias, activation=activation, scale=0.3, **others)
        for threads, count in ((1, 70), (2, 70), (3, 1), (2, 7)):
            torch.set_num_threads(threads)
            own = {name: other[:count] for name, other in others.items()}
            found = project_rounded(
                round_once(rows[:count], level), weight, own_bias, activation=activation, scale=0.3, **own
            )
            assert torch.equal(found, expected[:count]), (activation, threads, count)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("activation", ["gelu", "silu", "relu"])
def test_activations_of_every_size_are_those_of_torch_bit_for_bit(level: str, activation: Activation) -> None:
    sums = torch.cat((torch.linspace(-100, 100, 4000), 10.0 ** torch.linspace(-38, 38, 80)))
    sums = torch.cat((sums, -sums, torch.tensor([torch.inf, -torch.inf, torch.nan] + [0.0] * 13)))
    zeros, weight = torch.zeros(1, 32), round_weight(torch.zeros(len(sums), 32), 8)
    ways: dict[str, Any] = {"activation": activation, "scale": 1.0, "factors": None, "residual": None}
    expected = project_in_torch(round_in_torch(zeros), weight, sums, **ways)
    found = project_rounded(round_once(zeros, level), weight, sums, **ways)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    wide = sums.double()
    slopes = {"gelu": (8 / torch.pi) ** 0.5 * (wide + 0.044715 * wide**3), "silu": wide}
    exact = wide * slopes[activation].sigmoid() if activation != "relu" else wide.relu()
    torch.testing.assert_close(found[0], exact.float(), rtol=3e-5, atol=1e-30, equal_nan=True)


def test_a_projection_is_near_the_exact_one() -> None:
    rows, weight, bias = numbers(20, 100), numbers(64, 100) / 10, numbers(64)
    filled = round_weight(torch.nn.functional.pad(weight, (0, 28)), 8)
    exact = torch.nn.functional.gelu(rows @ weight.T + bias, approximate="tanh") + rows[:, :64]
    found = project_rounded(round_once(rows), filled, bias, activation="gelu", residual=rows[:, :64].contiguous())
    assert (found - exact).norm() < 0.01 * exact.norm()


def test_tensors_that_do_not_fit_are_refused() -> None:
    rows, weight, bias = round_once(numbers(2, 80)), packed(48, 80), numbers(48)
    narrow = replace(rows, dtype=torch.bfloat16)
    misfits: list[tuple[RoundedRows, PackedWeight, torch.Tensor, torch.Tensor | None]] = [
        (round_once(numbers(2, 40)), weight, bias, None),
        (rows, weight, bias[1:], None),
        (rows, weight, bias.int(), None),
        (rows, weight, not_aligned(48), None),
        (rows, replace(weight, codes=weight.codes[:2]), bias, None),
        (rows, weight, bias, numbers(3, 48)),
        (rows, weight, bias, numbers(48, 2).T),
        (rows, weight, bias, not_aligned(2 * 48).view(2, 48)),
        (rows, replace(weight, scales=not_aligned(48)), bias, None),
        (narrow, weight, bias, numbers(2, 48)),
    ]
    for wrong_rows, wrong_weight, wrong_bias, residual in misfits:
        with pytest.raises(ValueError, match="no kernel projects"):
            project_rounded(wrong_rows, wrong_weight, wrong_bias, residual=residual)
    with pytest.raises(ValueError, match="no kernel rounds"):
        round_once(numbers(80))
    with pytest.raises(ValueError, match="sse9"):
        round_once(numbers(2, 80), "sse9")
    with pytest.raises(ValueError, match=r"no kernel of level plain rounds .* torch.float64"):
        round_once(numbers(2, 80).double(), "plain")


@pytest.mark.parametrize("level", [None, *LEVELS])
def test_rounded_rows_whose_parts_do_not_fit_are_refused(level: str | None) -> None:
    """Nothing makes such rows; whoever puts them together by hand gets an error and no crash."""
    rows, weight, bias = round_once(numbers(2, 80), level), packed(48, 80), numbers(48)
    wrong: list[dict[str, Any]] = [
        {"values": rows.values[:1]},
        {"values": rows.values.short()},
        {"values": rows.values.to("meta")},
        {"scales": rows.scales.double()},
        {"scales": not_aligned(2).view(2, 1)},
    ]
    if rows.level is not None:
        wrong += [{"offsets": rows.offsets[:1]}, {"offsets": rows.offsets.long()}, {"dtype": torch.float64}]
    for parts in wrong:
        with pytest.raises(ValueError, match="no kernel projects"):
            project_rounded(replace(rows, **parts), weight, bias)


def test_rows_may_have_gaps() -> None:
    wide, weight, bias = numbers(100, 90), packed(48, 80), numbers(48)
    for rows in (wide[:, 5:85], wide.T[:80, :90].T, wide[:80].T):
        expected = project_rounded(round_once(rows.clone(memory_format=torch.contiguous_format)), weight, bias)
        assert torch.equal(project_rounded(round_once(rows), weight, bias), expected)
        assert torch.equal(project_rounded(round_in_torch(rows), weight, bias), expected)


def test_gradients_are_refused() -> None:
    with torch.inference_mode(False), torch.enable_grad(), pytest.raises(ValueError, match="no gradients"):
        round_once(torch.ones(1, 96, requires_grad=True))


def test_an_activation_that_nobody_knows_is_refused() -> None:
    for rows in (round_once(numbers(2, 80)), round_in_torch(numbers(2, 80))):
        with pytest.raises(ValueError, match="activation: tanh"):
            project_rounded(rows, packed(48, 80), activation="tanh")  # type: ignore[arg-type]
