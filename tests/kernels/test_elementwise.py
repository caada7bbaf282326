import pytest
import torch
from torch.nn import functional

from phi4.kernels.elementwise import rms_norm, rotate, swiglu
from phi4.kernels.instructions import LEVELS, NATIVE, can_run
from phi4.model.rope import apply_rotary

pytestmark = pytest.mark.skipif(NATIVE is None, reason="no kernels were compiled here")

DTYPES = [(torch.float32, 1e-6), (torch.bfloat16, 2**-7)]
TOKENS, WIDTH, HALF = 7, 40, 10


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("dtype", "error"), DTYPES)
def test_every_level_agrees_with_plain_torch_or_exact_sums(level: str, dtype: torch.dtype, error: float) -> None:
    torch.manual_seed(0)
    hidden, weight = 5 * torch.randn(TOKENS, WIDTH).to(dtype), torch.randn(WIDTH).to(dtype)
    normed = weight * functional.rms_norm(hidden.float(), weight.shape, eps=1e-5).to(dtype)
    torch.testing.assert_close(rms_norm(hidden, weight, 1e-5, level), normed, rtol=error, atol=error)
    # torch rounds in between, so that small differences of large numbers are far from exact; the kernels do not.
    gate, up = hidden.chunk(2, dim=-1)
    exact = functional.silu(gate.double()) * up.double()
    torch.testing.assert_close(swiglu(hidden, level).double(), exact, rtol=error, atol=error)
    heads = torch.randn(TOKENS, 5, 32).to(dtype)
    cos, sin = torch.randn(2, TOKENS, 1, HALF).to(dtype)
    exact = apply_rotary(heads.double(), cos.double(), sin.double())
    rotate(heads, cos, sin, level)
    torch.testing.assert_close(heads.double(), exact, rtol=error, atol=error)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_neighbours_change_no_bit(level: str, dtype: torch.dtype) -> None:
    hidden, weight = torch.randn(TOKENS, WIDTH).to(dtype), torch.randn(WIDTH).to(dtype)
    for row in range(TOKENS):
        own = hidden[row : row + 1]
        assert torch.equal(rms_norm(own, weight, 1e-5, level), rms_norm(hidden, weight, 1e-5, level)[row : row + 1])
        assert torch.equal(swiglu(own, level), swiglu(hidden, level)[row : row + 1])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("extreme", [0.0, 1e4, -1e4, 3e38, -3e38])
def test_extreme_gates_give_what_torch_gives(level: str, extreme: float) -> None:
    gate_up = torch.tensor([[extreme, 1.0, 2.0, -1.0]])
    torch.testing.assert_close(swiglu(gate_up, level), functional.silu(gate_up[:, :2]) * gate_up[:, 2:])


def test_what_is_not_a_number_stays_so() -> None:
    assert swiglu(torch.tensor([[torch.nan, 1.0]])).isnan().all()
    assert swiglu(torch.tensor([[torch.nan, 1.0]]).bfloat16()).isnan().all()
    assert rms_norm(torch.tensor([[torch.nan, 1.0]]), torch.ones(2), 1e-5).isnan().all()


def test_tensors_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="normalises"):
        rms_norm(torch.ones(2, 4), torch.ones(5), 1e-5)
    with pytest.raises(ValueError, match="gates"):
        swiglu(torch.ones(2, 5))
    for hidden in (torch.ones(4), torch.tensor(1.0), torch.ones(2, 8)[:, ::2], torch.ones(2, 4, device="meta")):
        with pytest.raises(ValueError, match="normalises"):
            rms_norm(hidden, torch.ones(4), 1e-5)
    with pytest.raises(ValueError, match="gates"):
        swiglu(torch.ones(4))
    for heads, angles in (((2, 3, 8), (2, 1, 5)), ((2, 8), (2, 1, 4)), ((2, 3, 8), (2, 4)), ((2, 3, 8), (3, 1, 4))):
        with pytest.raises(ValueError, match="rotates"):
            rotate(torch.ones(heads), torch.ones(angles), torch.ones(angles))
    with pytest.raises(ValueError, match="rotates"):
        rotate(torch.ones(2, 8, 3).transpose(1, 2), torch.ones(2, 1, 4), torch.ones(2, 1, 4))
    with pytest.raises(ValueError, match="rotates"):
        rotate(torch.ones(1, 3, 8).expand(2, 3, 8), torch.ones(2, 1, 4), torch.ones(2, 1, 4))


def test_rows_may_be_none() -> None:
    assert rms_norm(torch.ones(0, 4), torch.ones(4), 1e-5).shape == (0, 4)
    assert swiglu(torch.ones(0, 4)).shape == (0, 2)
    rotate(torch.ones(0, 3, 8), torch.ones(0, 1, 4), torch.ones(0, 1, 4))


def test_the_reason_is_said_where_gradients_are_kept() -> None:
    with torch.inference_mode(False), torch.enable_grad(), pytest.raises(ValueError, match="gradients are kept"):
        swiglu(torch.ones(1, 2))


def test_gradients_and_other_types_are_left_to_torch() -> None:
    assert can_run(torch.ones(1, 2))
    assert not can_run(torch.ones(1, 2, dtype=torch.float16))
    assert not can_run(torch.ones(1, 2), torch.ones(1, 2, dtype=torch.bfloat16))
    with torch.inference_mode(False), torch.enable_grad():
        assert not can_run(torch.ones(1, 2))
