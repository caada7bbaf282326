"""The dynamic HD transform: the release's grids and counts, and what holds for every size."""

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from phi4.errors import InputError
from phi4.inputs import ImageCrops
from phi4.processing.image import choose_grid, fit_into_grid, image_to_crops, num_image_tokens
from phi4.processing.settings import ImageSettings

RELEASED = ImageSettings()
SMALL = ImageSettings(crop_size_px=56, patch_size_px=14, max_crops=6)

# width, height, grid, resized, tokens: the table of facts sheet 4.4.
RELEASED_SIZES = [
    (448, 448, (1, 1), (448, 448), 545),
    (200, 200, (1, 1), (448, 448), 545),
    (640, 480, (2, 2), (896, 672), 1065),
    (1024, 768, (3, 2), (1194, 896), 1681),
    (896, 1344, (2, 3), (896, 1344), 1857),
    (1344, 896, (3, 2), (1344, 896), 1841),
    (1280, 720, (3, 2), (1344, 756), 1596),
    (1344, 1344, (3, 3), (1344, 1344), 2625),
    (1920, 1080, (5, 3), (2240, 1260), 3918),
    (2688, 2688, (6, 6), (2688, 2688), 9585),
    (3840, 2160, (7, 4), (3136, 1764), 7392),
    (4000, 3000, (4, 3), (1792, 1344), 3393),
    (16128, 448, (36, 1), (16128, 448), 9505),
    (448, 16128, (1, 36), (448, 16128), 10065),
]


def picture(width: int, height: int, seed: int = 0) -> PIL.Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return PIL.Image.fromarray(pixels)


@pytest.mark.parametrize(("width", "height", "grid", "resized", "tokens"), RELEASED_SIZES)
def test_grid_size_and_tokens_are_the_releases(
    width: int, height: int, grid: tuple[int, int], resized: tuple[int, int], tokens: int
) -> None:
    assert choose_grid(width, height, RELEASED) == grid
    assert fit_into_grid(width, height, *grid, RELEASED) == resized
    if width * height <= 1920 * 1080:
        crops = image_to_crops(PIL.Image.new("RGB", (width, height)), RELEASED)
        assert (crops.columns, crops.rows) == grid
        assert crops.crops.shape == (1 + grid[0] * grid[1], 3, 448, 448)
        assert num_image_tokens(crops) == tokens


@given(width=st.integers(1, 700), height=st.integers(1, 700))
def test_every_size_keeps_the_promises_of_the_transform(width: int, height: int) -> None:
    try:
        crops = image_to_crops(PIL.Image.new("RGB", (width, height)), SMALL)
    except InputError:
        assert max(width, height) > 5 * min(width, height)  # below 10 of 56 px
        return
    assert 1 <= crops.columns * crops.rows <= SMALL.max_crops
    assert crops.mask.flatten(1).any(dim=1).all()  # no tile is all padding
    resized = fit_into_grid(width, height, crops.columns, crops.rows, SMALL)
    padded = [side < tiles * 56 for side, tiles in zip(resized, (crops.columns, crops.rows), strict=True)]
    assert sum(padded) <= 1
    # R (C + 1) + 273 in facts sheet 4.4, for 2 x 2 vectors a crop instead of 16 x 16.
    useful_columns, useful_rows = (-(-side // 28) for side in resized)
    assert num_image_tokens(crops) == useful_rows * (useful_columns + 1) + 1 + 2 * 3


@given(width=st.integers(10, 9000), height=st.integers(10, 9000))
def test_at_the_releases_size_no_tile_is_all_padding_and_one_side_is_full(width: int, height: int) -> None:
    columns, rows = choose_grid(width, height, RELEASED)
    resized_width, resized_height = fit_into_grid(width, height, columns, rows, RELEASED)
    assert 1 <= columns * rows <= 36
    assert 448 * (columns - 1) < resized_width <= 448 * columns
    assert 448 * (rows - 1) < resized_height <= 448 * rows
    assert resized_width == 448 * columns or resized_height == 448 * rows


def test_tiles_are_the_picture_row_by_row() -> None:
    image = picture(112, 168)
    crops = image_to_crops(image, SMALL)
    assert (crops.columns, crops.rows) == (2, 3)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 127.5 - 1.0
    for row in range(3):
        for column in range(2):
            expected = pixels[:, 56 * row : 56 * row + 56, 56 * column : 56 * column + 56]
            torch.testing.assert_close(crops.crops[1 + 2 * row + column], expected)
    assert crops.mask.all()


def test_padding_is_white_and_masked_by_whole_patches() -> None:
    crops = image_to_crops(PIL.Image.new("RGB", (56, 20)), SMALL)
    assert (crops.crops[1, :, 20:] == 1.0).all()
    assert (crops.crops[1, :, :20] == -1.0).all()
    # 36 px of padding hold two whole patches.
    assert crops.mask[1].tolist() == [[True] * 4, [True] * 4, [False] * 4, [False] * 4]
    assert crops.mask[0].all()


def test_the_global_view_is_taken_from_the_padded_picture() -> None:
    crops = image_to_crops(picture(100, 40), SMALL)
    padded = torch.cat([crops.crops[1], crops.crops[2]], dim=2)
    expected = torch.nn.functional.interpolate(padded[None], size=(56, 56), mode="bicubic", antialias=False)
    assert torch.equal(crops.crops[0], expected[0])


def test_one_pixel_fills_a_crop() -> None:
    crops = image_to_crops(PIL.Image.new("RGB", (1, 1), (255, 0, 0)), RELEASED)
    assert num_image_tokens(crops) == 545
    assert crops.crops[1, :, 200, 200].tolist() == [1.0, -1.0, -1.0]


def test_a_sliver_is_refused_with_its_numbers() -> None:
    with pytest.raises(InputError, match="20000 x 10 px is too long and thin: scaled to 36 x 1 crops"):
        image_to_crops(PIL.Image.new("RGB", (20000, 10)), RELEASED)


def test_odd_numbers_of_patches_count_by_the_first_of_each_pair() -> None:
    mask = torch.ones(2, 4, 4, dtype=torch.bool)
    mask[1, 3:] = False
    crops = ImageCrops(crops=torch.zeros(2, 3, 56, 56), mask=mask, columns=1, rows=1)
    assert num_image_tokens(crops) == 2 * 3 + 1 + 2 * 3
