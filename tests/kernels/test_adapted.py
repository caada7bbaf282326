from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from kernels.test_quantised import numbers, packed
from phi4.config import AdapterConfig
from phi4.kernels.adapted import LowRank, multiply_adapted, multiply_in_steps
from phi4.kernels.instructions import LEVELS
from phi4.kernels.quantised import PackedWeight, multiply_packed
from phi4.model.lora import AdaptedLinear
from phi4.model.quantised import QuantisedWeight
from phi4.model.step import AdapterRun

OUTPUTS, INPUTS, RANK = 80, 96, 64
ROWS = 37
# The rows of LoRAs: all, those of one in the middle, two beside each other, and one row.
PLACES = ([(0, ROWS)], [(3, 30)], [(0, 16), (16, ROWS)], [(36, ROWS)])


def scaled(outputs: int, inputs: int, bits: int) -> PackedWeight:
    """A matrix that keeps rows at about their size."""
    weight = packed(outputs, inputs, bits)
    return replace(weight, scales=weight.scales / (128 * inputs**0.5))


def loras(places: Sequence[tuple[int, int]]) -> list[LowRank]:
    """One for each place, no two alike."""
    down, up = scaled(RANK, INPUTS, 8), scaled(OUTPUTS, RANK, 8)
    return [LowRank(start, stop, down, up, 0.3 * (number + 1)) for number, (start, stop) in enumerate(places)]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("places", PLACES)
def test_one_call_gives_the_bits_of_three_at_every_level_and_of_plain_torch(
    any_threads: None, level: str, dtype: torch.dtype, bits: int, places: Sequence[tuple[int, int]]
) -> None:
    rows, weight, added = numbers(ROWS, INPUTS, dtype=dtype), scaled(OUTPUTS, INPUTS, bits), loras(places)
    with torch.inference_mode(False), torch.enable_grad():  # kernels have no gradients: plain torch does it
        expected = multiply_adapted(rows.clone(), weight, added)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        assert torch.equal(multiply_adapted(rows, weight, added, level), expected)
        assert torch.equal(multiply_in_steps(rows, weight, added, level), expected)


def test_what_is_added_is_the_scaled_product_with_both_matrices() -> None:
    rows, weight, (lora,) = numbers(ROWS, INPUTS), scaled(OUTPUTS, INPUTS, 4), loras([(3, 30)])
    added = multiply_adapted(rows, weight, [lora]) - multiply_packed(rows, weight)
    down, up = (matrix.rows(torch.arange(matrix.shape[0])) for matrix in (lora.down, lora.up))
    exact = lora.scale * rows[3:30] @ down.T @ up.T
    assert (added[3:30] - exact).norm() < 0.02 * exact.norm()
    assert not added[:3].any()
    assert not added[30:].any()


def test_a_row_has_the_same_bits_alone_and_in_company() -> None:
    rows, weight = numbers(ROWS, INPUTS, dtype=torch.bfloat16), scaled(OUTPUTS, INPUTS, 4)
    together = multiply_adapted(rows, weight, loras([(0, ROWS)]))
    for row in range(ROWS):
        assert torch.equal(multiply_adapted(rows[row : row + 1], weight, loras([(0, 1)]))[0], together[row])


def test_without_a_lora_it_is_the_bare_product() -> None:
    rows, weight = numbers(ROWS, INPUTS), scaled(OUTPUTS, INPUTS, 4)
    assert torch.equal(multiply_adapted(rows, weight, []), multiply_packed(rows, weight))


def test_loras_that_do_not_fit_are_refused() -> None:
    rows, weight, (lora,) = numbers(ROWS, INPUTS), scaled(OUTPUTS, INPUTS, 4), loras([(0, ROWS)])
    misfits = [
        replace(lora, start=-1),
        replace(lora, stop=ROWS + 1),
        replace(lora, start=5, stop=5),
        replace(lora, down=scaled(RANK, INPUTS + 32, 8)),
        replace(lora, down=scaled(RANK - 32, INPUTS, 8)),
        replace(lora, up=scaled(OUTPUTS - 16, RANK, 8)),
        replace(lora, up=replace(lora.up, scales=lora.up.scales[1:])),
        replace(lora, down=replace(lora.down, codes=lora.down.codes.int())),
    ]
    for wrong in misfits:
        with pytest.raises(ValueError, match=r"no kernel multiplies .* for LoRAs of rows"):
            multiply_adapted(rows, weight, [wrong])
    with pytest.raises(ValueError, match="sse9"):
        multiply_adapted(rows, weight, [lora], "sse9")


def test_a_lora_of_8_bits_gives_the_same_beside_one_that_is_not_quantised() -> None:
    adapters = {"vision": AdapterConfig(RANK, 20.0, 0.0, 8), "speech": AdapterConfig(RANK, 20.0)}
    layer = AdaptedLinear(INPUTS, OUTPUTS, adapters, 4).to(torch.bfloat16)
    for weight, (outputs, inputs, bits) in (
        (layer.weight, (OUTPUTS, INPUTS, 4)),
        (layer.lora_A["vision"].weight, (RANK, INPUTS, 8)),
        (layer.lora_B["vision"].weight, (OUTPUTS, RANK, 8)),
    ):
        random = scaled(outputs, inputs, bits)
        assert isinstance(weight, QuantisedWeight)
        weight.codes, weight.steps, weight.scales = random.codes, random.steps, random.scales
    rows = numbers(4, INPUTS, dtype=torch.bfloat16)
    alone = layer(rows[:2], (AdapterRun("vision", 0, 2),))
    together = layer(rows, (AdapterRun("vision", 0, 2), AdapterRun("speech", 2, 4)))
    assert torch.equal(alone, together[:2])
