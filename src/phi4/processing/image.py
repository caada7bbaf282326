"""The dynamic HD transform: a picture becomes one global view and up to 36 tiles (facts sheet 4.3)."""

import math

import numpy as np
import PIL.Image
import torch
from torch.nn import functional

from phi4.errors import InputError
from phi4.inputs import ImageCrops
from phi4.processing.settings import ImageSettings

# Facts sheet 4.3, steps 5, 6 and 8.
MIN_RESIZED_SIDE_PX = 10
PADDING_COLOUR = (255, 255, 255)
PIXEL_MEAN = 0.5
PIXEL_DEVIATION = 0.5


def image_to_crops(image: PIL.Image.Image, settings: ImageSettings) -> ImageCrops:
    """Cuts a picture into crops as the release does (facts sheet 4.3, steps 1 to 10).

    Args:
        image: in RGB.
        settings: sizes of crops and patches, and how many crops at most.

    Raises:
        InputError: the picture is so long and thin that almost nothing of it would be left.
    """
    side, patches = settings.crop_size_px, settings.patches_per_side
    columns, rows = choose_grid(image.width, image.height, settings)
    width, height = fit_into_grid(image.width, image.height, columns, rows, settings)

    canvas = PIL.Image.new("RGB", (columns * side, rows * side), PADDING_COLOUR)
    canvas.paste(image.resize((width, height), PIL.Image.Resampling.BILINEAR), (0, 0))
    pixels = torch.from_numpy(np.array(canvas)).permute(2, 0, 1).float() / 255.0  # [3, height, width]
    pixels = (pixels - PIXEL_MEAN) / PIXEL_DEVIATION

    mask = torch.zeros(rows * patches, columns * patches, dtype=torch.bool)
    # A patch counts as picture unless all of it is padding.
    mask[: math.ceil(height / settings.patch_size_px), : math.ceil(width / settings.patch_size_px)] = True

    # The global view is taken from the padded picture, not from the original.
    global_view = functional.interpolate(pixels[None], size=(side, side), mode="bicubic")
    tiles = pixels.reshape(3, rows, side, columns, side).permute(1, 3, 0, 2, 4).reshape(-1, 3, side, side)
    tile_masks = mask.reshape(rows, patches, columns, patches).transpose(1, 2).reshape(-1, patches, patches)
    return ImageCrops(
        crops=torch.cat([global_view, tiles]),
        mask=torch.cat([torch.ones(1, patches, patches, dtype=torch.bool), tile_masks]),
        columns=columns,
        rows=rows,
    )


def choose_grid(width_px: int, height_px: int, settings: ImageSettings) -> tuple[int, int]:
    """Chooses how many tiles a picture gets across and down (facts sheet 4.3, steps 2 and 3).

    Returns:
        columns and rows: as many as cover the picture; if those are too many, the grid whose shape is nearest.
    """
    side, limit = settings.crop_size_px, settings.max_crops
    columns, rows = math.ceil(width_px / side), math.ceil(height_px / side)
    if columns * rows <= limit:
        return columns, rows
    grids = [(i, j) for i in range(1, limit + 1) for j in range(1, limit // i + 1)]
    best, smallest_difference = (1, 1), math.inf
    for i, j in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        difference = abs(width_px / height_px - i / j)
        # Of grids with the same shape, a bigger one is taken if the picture fills more than half of it.
        fills_half = width_px * height_px > 0.5 * side * side * i * j
        if difference < smallest_difference or (difference == smallest_difference and fills_half):
            best, smallest_difference = (i, j), difference
    return best


def fit_into_grid(width_px: int, height_px: int, columns: int, rows: int, settings: ImageSettings) -> tuple[int, int]:
    """Scales a picture to fill its grid on at least one side (facts sheet 4.3, steps 4 and 5).

    Returns:
        width and height in px; what is missing on the other side is padded on the right or at the bottom.

    Raises:
        InputError: a side would get shorter than 10 px.
    """
    grid_width, grid_height = columns * settings.crop_size_px, rows * settings.crop_size_px
    width_ratio, height_ratio = grid_width / width_px, grid_height / height_px
    if width_ratio < height_ratio:
        size = grid_width, int(height_px * width_ratio)
    else:
        size = int(width_px * height_ratio), grid_height
    if min(size) < MIN_RESIZED_SIDE_PX:
        raise InputError(
            f"a picture of {width_px} x {height_px} px is too long and thin: scaled to {columns} x {rows} crops "
            f"it would be {size[0]} x {size[1]} px, and {MIN_RESIZED_SIDE_PX} px are needed on each side; "
            "cut it into pieces"
        )
    return size


def num_image_tokens(crops: ImageCrops) -> int:
    """Counts the placeholder tokens of a picture (facts sheet 4.4).

    Tiles give one token for each 2 x 2 patches whose top left patch holds picture, and one at the end of each row; then
    come one separator and the global view, which ends its rows likewise.
    """
    patches = crops.mask.shape[-1]
    tile_masks = crops.mask[1:].reshape(crops.rows, crops.columns, patches, patches)
    pooled = tile_masks.transpose(1, 2).reshape(crops.rows * patches, crops.columns * patches)[::2, ::2]
    useful_rows, useful_columns = int(pooled[:, 0].sum()), int(pooled[0].sum())
    side = math.ceil(patches / 2)
    return useful_rows * (useful_columns + 1) + 1 + side * (side + 1)
