from dataclasses import replace

import pytest
import torch
from torch import nn

from phi4.errors import ConfigError
from phi4.train.masters import Masters, is_matrix
from train.stages import align

STAGE = replace(align(), weight_decay=0.5, max_grad_norm=1e9)


def parameters(dtype: torch.dtype = torch.float32) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"matrix": (4, 3), "bias": (3,), "separator": (1, 1, 1, 3), "kernel": (2, 1, 3, 3), "scalar": ()}
    return {name: nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for name, shape in shapes.items()}


def update(masters: Masters, seed: int, rate: float = 0.1) -> float:
    generator = torch.Generator().manual_seed(seed)
    for parameter in masters.parameters.values():
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
    masters.accumulate()
    return masters.update(rate)


def test_only_matrices_and_kernels_decay() -> None:
    decayed, plain = parameters(), parameters()
    before = parameters()
    update(Masters(decayed, STAGE), seed=1)
    update(Masters(plain, replace(STAGE, weight_decay=0.0)), seed=1)
    for name, parameter in decayed.items():
        loss = 0.1 * 0.5 * before[name] if name in ("matrix", "kernel") else torch.zeros(())
        torch.testing.assert_close(plain[name] - parameter, loss.expand(parameter.shape))


def test_a_part_with_a_factor_learns_so_many_times_as_fast() -> None:
    own, before = parameters(), parameters()
    stage = replace(STAGE, weight_decay=0.0, trains=("matrix", "kernel", "bias"), rate_factors={"kernel": 0.1})
    update(Masters(own, stage), seed=1, rate=0.1)
    for name, rate in (("matrix", 0.1), ("bias", 0.1), ("kernel", 0.01)):  # AdamW's first step is the rate itself
        torch.testing.assert_close(
            (own[name] - before[name]).abs(), torch.full_like(own[name], rate), rtol=1e-3, atol=0
        )


@pytest.mark.parametrize("factors", [{"vision": 2.0}, {"matrix": 0.0}])
def test_a_factor_of_nothing_that_trains_or_of_zero_is_refused(factors: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="rate_factors"):
        replace(STAGE, trains=("matrix",), rate_factors=factors)


@pytest.mark.parametrize("shape", [(1, 8), (8, 1), (2, 8), (8, 1, 3)])
def test_a_lora_of_rank_one_is_a_matrix(shape: tuple[int, ...]) -> None:
    assert is_matrix(shape)


@pytest.mark.parametrize("shape", [(), (8,), (1, 1, 8), (1, 8, 1), (1, 1, 1, 8)])
def test_a_vector_is_none_in_whatever_shape(shape: tuple[int, ...]) -> None:
    assert not is_matrix(shape)


def test_steps_too_small_for_bf16_add_up_in_the_masters() -> None:
    own = parameters(torch.bfloat16)
    masters = Masters(own, replace(STAGE, weight_decay=0.0))
    before = own["matrix"].detach().clone()
    with torch.no_grad():
        for _ in range(200):
            own["matrix"].grad = torch.ones_like(own["matrix"])
            masters.accumulate()
            masters.update(1e-4)
    torch.testing.assert_close(own["matrix"].float(), before.float() - 200 * 1e-4, atol=1e-2, rtol=0)
    assert torch.equal(own["matrix"], masters.masters["matrix"].bfloat16())


def test_weights_wider_than_their_pack_are_values_that_it_can_hold() -> None:
    own = parameters()
    masters = Masters(own, STAGE, {"matrix": torch.bfloat16})
    update(masters, seed=1)
    assert torch.equal(own["matrix"], own["matrix"].bfloat16().float())
    assert torch.equal(own["matrix"], masters.masters["matrix"].bfloat16().float())
    assert not torch.equal(own["matrix"], masters.masters["matrix"])


def test_rows_add_up() -> None:
    own = parameters()
    masters = Masters(own, STAGE)
    for _ in range(3):
        own["bias"].grad = torch.tensor([1.0, 2.0, 3.0])
        masters.accumulate()
        assert own["bias"].grad is None
    assert masters.masters["bias"].grad is not None
    assert masters.masters["bias"].grad.tolist() == [3.0, 6.0, 9.0]


def test_the_gradient_is_clipped_and_its_norm_reported() -> None:
    own = {"bias": nn.Parameter(torch.zeros(2))}
    # With a large epsilon, AdamW's first step is rate * gradient / epsilon.
    masters = Masters(own, replace(STAGE, max_grad_norm=1.0, epsilon=1e6))
    own["bias"].grad = torch.tensor([30.0, 40.0])
    masters.accumulate()
    assert masters.update(1e6) == pytest.approx(50.0)
    torch.testing.assert_close(own["bias"].detach(), torch.tensor([-0.6, -0.8]))


def test_a_weight_that_gets_no_gradient_does_not_decay() -> None:
    own = {"idle": nn.Parameter(torch.ones(2, 2)), "used": nn.Parameter(torch.ones(2, 2))}
    masters = Masters(own, replace(STAGE, weight_decay=0.5))
    own["used"].grad = torch.ones(2, 2)
    masters.accumulate()
    masters.update(0.1)
    assert torch.equal(own["idle"], torch.ones(2, 2))
    assert not torch.equal(own["used"], torch.ones(2, 2))
    resumed = Masters({name: nn.Parameter(torch.zeros(2, 2)) for name in own}, STAGE)
    resumed.restore(masters.state())
    assert torch.equal(resumed.parameters["used"], own["used"])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_no_number_changes_nothing(bad: float) -> None:
    own = parameters()
    masters = Masters(own, STAGE)
    before = {name: parameter.detach().clone() for name, parameter in own.items()}
    own["bias"].grad = torch.tensor([1.0, bad, 1.0])
    masters.accumulate()
    masters.update(0.1)
    assert all(torch.equal(parameter, before[name]) for name, parameter in own.items())
    assert not any(gradient.any() for gradient in masters.gradients)


def test_state_and_restore_continue_bit_for_bit() -> None:
    whole, stopped, resumed = (Masters(parameters(torch.bfloat16), STAGE) for _ in range(3))
    for seed in (1, 2, 3):
        update(whole, seed)
    update(stopped, 1)
    resumed.restore({name: tensor.clone() for name, tensor in stopped.state().items()})
    for seed in (2, 3):
        update(resumed, seed)
    assert all(torch.equal(tensor, whole.state()[name]) for name, tensor in resumed.state().items())
    assert all(torch.equal(parameter, whole.parameters[name]) for name, parameter in resumed.parameters.items())


def test_a_weight_that_overflows_the_models_dtype_is_noticed() -> None:
    own = {"bias": nn.Parameter(torch.zeros(2, dtype=torch.float16))}
    masters = Masters(own, STAGE)
    assert masters.is_finite()
    own["bias"].grad = torch.ones(2, dtype=torch.float16)
    masters.accumulate()
    masters.update(1e6)
    assert not masters.is_finite()
