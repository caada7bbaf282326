from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels.conftest import not_aligned
from phi4.checkpoint.rounding import round_weight
from phi4.kernels.instructions import LEVELS, NATIVE
from phi4.kernels.quantised import PackedWeight, largest_value, multiply_in_torch, multiply_packed, round_rows

BITS = (4, 8)
# One block and one group, odd numbers of blocks and a short span, more than one chunk of groups, more blocks than
# threads share.
SHAPES = [(16, 32), (48, 160), (80, 640), (1040, 64)]


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def packed(outputs: int, inputs: int, bits: int) -> PackedWeight:
    """Codes of all values, with steps and lowest values that reach both ends of a byte."""
    generator = torch.Generator().manual_seed(outputs + inputs)
    blocks, groups = outputs // 16, inputs // 32
    codes = torch.randint(0, 256, (blocks, groups, bits, 16, 4), dtype=torch.uint8, generator=generator)
    step = torch.randint(1, 18, (blocks, groups, 16), generator=generator)
    lowest = (torch.rand(step.shape, generator=generator) * (256 - 15 * step)).long()
    steps = torch.stack((step, lowest), 2).to(torch.uint8) if bits == 4 else None
    return PackedWeight(codes, steps, torch.rand(outputs, generator=generator))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_every_level_gives_the_bits_of_plain_torch_for_any_number_of_rows_and_threads(
    any_threads: None, level: str, dtype: torch.dtype, bits: int, outputs: int, inputs: int
) -> None:
    weight, rows = packed(outputs, inputs, bits), 3 * numbers(300, inputs, dtype=dtype)
    expected = multiply_in_torch(rows, weight)
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        # Of one shape all numbers of rows: the others would only take longer.
        for count in (*range(1, 65 if outputs == 80 else 14), 64, 300):
            assert torch.equal(multiply_packed(rows[:count], weight, level), expected[:count])


@pytest.mark.skipif(NATIVE is None, reason="no kernels were compiled here")
@pytest.mark.parametrize("bits", BITS)
@given(first=st.integers(0, 63), count=st.integers(1, 64))
def test_neighbours_change_no_bit(bits: int, first: int, count: int) -> None:
    with torch.inference_mode():
        rows, weight = numbers(64, 96), packed(48, 96, bits)
        own = slice(first, first + count)
        assert torch.equal(multiply_packed(rows[own], weight), multiply_packed(rows, weight)[own])


@pytest.mark.parametrize("level", [None, *LEVELS])
@pytest.mark.parametrize("bits", BITS)
def test_the_largest_values_of_both_signs_are_summed_exactly(level: str | None, bits: int) -> None:
    """All products of a span are as large as they can be: sums of 16 bits would overflow."""
    weight = packed(16, 128, bits)
    weight.codes.fill_(255)
    if weight.steps is not None:
        weight.steps[:, :, 0], weight.steps[:, :, 1] = 17, 0
    for sign in (1.0, -1.0):
        results = multiply_packed(torch.full((6, 128), sign * 127), replace(weight, scales=torch.ones(16)), level)
        assert torch.equal(results, torch.full((6, 16), sign * 127 * 127 * 128))


@pytest.mark.parametrize("bits", BITS)
def test_products_are_near_those_of_the_weights(bits: int) -> None:
    weight, rows = numbers(64, 256), numbers(20, 256)
    exact = rows @ weight.T
    error = (multiply_packed(rows, round_weight(weight, bits)) - exact).norm() / exact.norm()
    assert error < (0.08 if bits == 4 else 0.01)


@pytest.mark.parametrize("bits", BITS)
def test_looked_up_rows_are_the_weights_that_products_use(bits: int) -> None:
    weight = packed(48, 96, bits)
    outputs = torch.tensor([0, 47, 16, 15, 16])
    whole = weight.values(0, 3) * weight.scales[:, None]
    assert torch.equal(weight.rows(outputs), whole[outputs])


def test_groups_of_zeros_and_of_tiny_numbers_are_zero() -> None:
    rows = torch.zeros(1, 64)
    rows[0, 40] = 1e-38
    assert multiply_packed(rows, packed(16, 64, 4)).count_nonzero() == 0


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_a_number_stays_so_and_its_neighbours_stay_as_they_are(bad: float) -> None:
    rows, weight = numbers(8, 64), packed(16, 64, 4)
    expected = multiply_packed(rows, weight)
    rows[3, 40] = bad
    for results in (multiply_packed(rows, weight), multiply_in_torch(rows, weight)):
        assert results[3].isnan().all()
        assert torch.equal(results[[0, 1, 2, 4, 5, 6, 7]], expected[[0, 1, 2, 4, 5, 6, 7]])


def test_rows_need_no_alignment_and_may_have_gaps() -> None:
    wide, weight = numbers(5, 201), packed(16, 64, 4)
    rows = wide[:, 3:67]
    assert torch.equal(multiply_packed(rows, weight), multiply_packed(rows.contiguous(), weight))
    assert torch.equal(multiply_packed(wide.T[:5, :0].reshape(0, 64), weight), torch.empty(0, 16))
    spread = wide[:, :128:2]
    assert torch.equal(multiply_packed(spread, weight), multiply_packed(spread.contiguous(), weight))


def test_numbers_are_rounded_to_the_nearest_ties_to_even() -> None:
    rows = torch.zeros(1, 32)
    rows[0, :5] = torch.tensor([127.0, 0.5, 1.5, -2.5, 0.51])
    assert round_rows(rows)[0][0, :5].tolist() == [127, 0, 2, -2, 1]


def test_tensors_that_do_not_fit_are_refused() -> None:
    weight, rows = packed(48, 96, 4), numbers(2, 96)
    assert weight.steps is not None
    misfits = [
        (numbers(2, 64), weight),
        (numbers(96), weight),
        (rows.int(), weight),
        (rows, replace(weight, codes=weight.codes[:2])),
        (rows, replace(weight, codes=weight.codes.int())),
        (rows, replace(weight, codes=weight.codes.flatten(3))),
        (rows, replace(weight, codes=weight.codes.transpose(0, 1).contiguous().transpose(0, 1))),
        (rows, replace(weight, steps=None)),
        (rows, replace(weight, steps=weight.steps[:, :2])),
        (rows, replace(weight, scales=weight.scales[1:])),
        (rows, replace(weight, scales=weight.scales.bfloat16())),
        (rows, replace(weight, scales=numbers(96)[::2])),
        (rows, replace(weight, scales=not_aligned(48))),
        (rows, replace(weight, codes=weight.codes.flatten())),
        (numbers(2, 0), replace(weight, codes=weight.codes[:, :0], steps=weight.steps[:, :0])),
        (rows.to("meta"), weight),
    ]
    for wrong_rows, wrong in misfits:
        with pytest.raises(ValueError, match="no kernel multiplies"):
            multiply_packed(wrong_rows, wrong)
    with pytest.raises(ValueError, match="sse9"):
        multiply_packed(rows, weight, "sse9")


@pytest.mark.parametrize("level", [None, *LEVELS])
def test_the_largest_value_of_any_place_is_found(level: str | None) -> None:
    steps = torch.ones(5, 3, 2, 16, dtype=torch.uint8)
    assert largest_value(steps, level) == 16
    for place in ((0, 0, 0), (2, 1, 7), (4, 2, 15)):
        block, group, lane = place
        steps[block, group, :, lane] += 1
        assert largest_value(steps, level) == 32
        steps[block, group, :, lane] = 255
        assert largest_value(steps, level) == 16 * 255
        steps[block, group, :, lane] = 1
    with pytest.raises(ValueError, match=r"no steps of 4 bits: \(5, 3, 16\)"):
        largest_value(steps[:, :, 0], level)


def test_gradients_are_refused() -> None:
    with torch.inference_mode(False), torch.enable_grad(), pytest.raises(ValueError, match="no gradients"):
        multiply_packed(torch.ones(1, 96, requires_grad=True), packed(48, 96, 4))
