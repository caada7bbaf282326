"""What surrounds the vision tower: position buckets, tiles, pooling, separators."""

import pytest
import torch

from conversations import picture
from phi4.checkpoint.weights import LoadedModel
from phi4.inputs import ImageCrops
from phi4.model.vision import Vision, join_tiles, pool_patches, position_ids


@pytest.fixture(scope="module")
def vision(tiny: LoadedModel) -> Vision:
    module: Vision = tiny.model.vision
    return module


@pytest.mark.parametrize("valid", range(1, 33))
def test_position_buckets_are_those_of_the_reference(valid: int) -> None:
    """The reference divides in fp32 and searches 31 boundaries; the golden formula is floor(32 k / valid)."""
    mask = torch.zeros(1, 32, 32, dtype=torch.bool)
    mask[:, :valid] = True
    fractions = torch.arange(valid).float() * (1.0 / valid)
    buckets = torch.bucketize(fractions.clamp(max=1 - 1e-6), torch.arange(1 / 32, 1.0, 1 / 32), right=True)
    rows = position_ids(mask).view(32, 32)[:valid, 0] // 32
    assert rows.tolist() == [32 * k // valid for k in range(valid)] == buckets.tolist()


def test_a_full_crop_counts_its_positions_in_order() -> None:
    assert position_ids(torch.ones(1, 32, 32, dtype=torch.bool)).tolist() == [list(range(1024))]


def test_masked_patches_keep_position_0() -> None:
    mask = torch.ones(1, 4, 4, dtype=torch.bool)
    mask[:, :, 3] = False
    assert position_ids(mask).view(4, 4)[:, 3].tolist() == [0, 0, 0, 0]


def test_tiles_are_laid_row_by_row() -> None:
    joined = torch.arange(4 * 6).view(4, 6, 1)
    tiles = torch.stack([joined[r : r + 2, c : c + 2] for r in (0, 2) for c in (0, 2, 4)])
    assert torch.equal(join_tiles(tiles, rows=2, columns=3), joined)


def test_pooling_averages_two_by_two() -> None:
    patches = torch.arange(16.0).view(1, 16, 1)
    assert pool_patches(patches, side=4).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]


@torch.inference_mode()
def test_the_order_is_tiles_then_separator_then_global_view(vision: Vision) -> None:
    image = picture(56, 4, seed=0, columns=2, rows=1)
    whole = vision(image)
    num_tile_tokens = 2 * (4 + 1)
    other_tiles = torch.cat((image.crops[:1], torch.zeros_like(image.crops[1:])))
    changed = vision(ImageCrops(other_tiles, image.mask, 2, 1))
    same = [torch.allclose(before, after) for before, after in zip(whole, changed, strict=True)]
    # Row separators (index 4 and 9) and everything from the separator on do not depend on the tiles.
    assert same == [index in (4, 9) or index >= num_tile_tokens for index in range(len(whole))]
    separator = vision.projector(vision.separator[0])
    assert torch.allclose(whole[num_tile_tokens], separator[0])


@torch.inference_mode()
def test_pixels_of_masked_patches_change_nothing_where_no_pooled_cell_holds_them(vision: Vision) -> None:
    image = picture(56, 4, seed=0, columns=1, rows=1)
    mask = image.mask.clone()
    mask[1, :, 2:] = False
    noisy = image.crops.clone()
    noisy[1, :, :, 28:] = 99.0
    assert torch.allclose(vision(ImageCrops(image.crops, mask, 1, 1)), vision(ImageCrops(noisy, mask, 1, 1)))
