import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from phi4.kernels.instructions import LEVELS, NATIVE
from phi4.kernels.linear import can_multiply, multiply

pytestmark = pytest.mark.skipif(NATIVE is None, reason="no kernels were compiled here")

DTYPES = [(torch.float32, 1e-6), (torch.bfloat16, 2**-7)]


def numbers(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("dtype", "error"), DTYPES)
# Whole vectors and rests of them, blocks of outputs and rests, rows that fill tiles and not.
@pytest.mark.parametrize(
    ("rows", "outputs", "inputs"), [(1, 1, 1), (13, 70, 600), (64, 9, 33), (300, 5, 64), (2, 400, 512)]
)
def test_every_level_agrees_with_exact_sums(
    level: str, dtype: torch.dtype, error: float, rows: int, outputs: int, inputs: int
) -> None:
    hidden, weight = numbers(rows, inputs, dtype=dtype), numbers(outputs, inputs, dtype=dtype)
    exact = hidden.double() @ weight.double().T
    found = multiply(hidden, weight, level=level)
    torch.testing.assert_close(found.double(), exact, rtol=error, atol=error * inputs**0.5)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@given(first=st.integers(0, 63), count=st.integers(1, 64))
def test_neighbours_change_no_bit(level: str, dtype: torch.dtype, first: int, count: int) -> None:
    with torch.inference_mode():
        hidden, weight = numbers(64, 200, dtype=dtype), numbers(30, 200, dtype=dtype)
        rows = slice(first, first + count)
        assert torch.equal(multiply(hidden[rows], weight, level=level), multiply(hidden, weight, level=level)[rows])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_change_no_bit(any_threads: None, level: str, dtype: torch.dtype) -> None:
    hidden, weight = numbers(40, 576, dtype=dtype), numbers(1000, 576, dtype=dtype)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(multiply(hidden, weight, level=level))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("level", LEVELS)
def test_sums_are_added_to_before_they_are_rounded(level: str) -> None:
    hidden, weight = numbers(9, 64, dtype=torch.bfloat16), numbers(11, 64, dtype=torch.bfloat16)
    start = numbers(9, 22, dtype=torch.bfloat16)
    expected = (start[:, :11].float() + multiply(hidden.float(), weight.float(), level=level)).bfloat16()
    rest = start[:, 11:].clone()
    added = multiply(hidden, weight, add_to=start[:, :11], level=level)
    # Partial sums of bf16 products may be added in another order than those of fp32.
    torch.testing.assert_close(added, expected, rtol=2**-7, atol=2**-7)
    assert (added != expected).float().mean() < 0.05  # rounded before the addition, a third would differ
    assert torch.equal(start[:, :11], added)
    assert torch.equal(start[:, 11:], rest)


def test_tensors_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"multiplies \(2, 3\) torch.float32, \(4, 5\)"):
        multiply(torch.ones(2, 3), torch.ones(4, 5))
    with pytest.raises(ValueError, match="multiplies"):
        multiply(torch.ones(2, 3), torch.ones(4, 3), add_to=torch.ones(2, 5))
    with pytest.raises(ValueError, match=r"multiplies .*\(2, 4\) torch.float32 with strides \(0, 1\)"):
        multiply(torch.ones(2, 3), torch.ones(4, 3), add_to=torch.ones(4).expand(2, 4))
    with pytest.raises(ValueError, match="multiplies"):
        multiply(torch.ones(2, 3), torch.ones(4, 3).bfloat16())
    for rows, weight in (((2, 0), (4, 0)), ((3,), (4, 3)), ((2, 3), (3,)), ((1, 2, 3), (4, 3))):
        with pytest.raises(ValueError, match="multiplies"):
            multiply(torch.ones(rows), torch.ones(weight))
    with pytest.raises(ValueError, match=r"on meta"):
        multiply(torch.ones(2, 3), torch.ones(4, 3, device="meta"))
    with pytest.raises(ValueError, match=r"\(4, 3\) torch.float32 with strides \(1, 4\)"):
        multiply(torch.ones(2, 3), torch.ones(3, 4).T)
    with pytest.raises(ValueError, match="sse9"):
        multiply(torch.ones(2, 3), torch.ones(4, 3), level="sse9")


def test_rows_and_outputs_may_be_none() -> None:
    assert multiply(torch.ones(0, 3), torch.ones(4, 3)).shape == (0, 4)
    assert multiply(torch.ones(2, 3), torch.ones(0, 3)).shape == (2, 0)


def test_gradients_and_other_types_are_left_to_torch() -> None:
    assert can_multiply(torch.ones(1, 2), torch.ones(1, 2))
    assert not can_multiply(torch.ones(1, 2).half(), torch.ones(1, 2).half())
    assert not can_multiply(torch.ones(1, 3), torch.ones(3, 2).T)
    with torch.inference_mode(False), torch.enable_grad():
        assert not can_multiply(torch.ones(1, 2), torch.ones(1, 2))
