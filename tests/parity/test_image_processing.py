"""The dynamic HD transform against the facts sheet's steps, written down one after the other.

transformers' own image processor needs torchvision, and resizes tensors where the release resizes Pillow images, so its
pixels differ. This is the release's procedure (facts sheet 4.3) without any of the shortcuts of the package.
"""

import math

import numpy as np
import PIL.Image
import pytest
import torch

from phi4.processing.image import image_to_crops, num_image_tokens
from phi4.processing.settings import ImageSettings


def steps_one_by_one(image: PIL.Image.Image) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Crops, masks and number of tokens by steps 2 to 10 of section 4.3 and section 4.4."""
    width, height = image.size
    columns, rows = math.ceil(width / 448), math.ceil(height / 448)
    if columns * rows > 36:
        best = math.inf
        for product in range(1, 37):
            for i, j in ((i, product // i) for i in range(1, product + 1) if product % i == 0):
                difference = abs(width / height - i / j)
                tie_for_bigger = difference == best and width * height > 0.5 * 448**2 * product
                if difference < best or tie_for_bigger:
                    best, columns, rows = difference, i, j
    ratio_width, ratio_height = 448 * columns / width, 448 * rows / height
    if ratio_width < ratio_height:
        size = (448 * columns, int(height * ratio_width))
    else:
        size = (int(width * ratio_height), 448 * rows)
    pad_right, pad_bottom = 448 * columns - size[0], 448 * rows - size[1]

    resized = np.array(image.resize(size, PIL.Image.Resampling.BILINEAR))
    padded = np.pad(resized, ((0, pad_bottom), (0, pad_right), (0, 0)), constant_values=255)
    pixels = (torch.from_numpy(padded).permute(2, 0, 1).float() / 255 - 0.5) / 0.5
    mask = torch.ones(32 * rows, 32 * columns, dtype=torch.bool)
    if pad_right >= 14:
        mask[:, -(pad_right // 14) :] = False
    if pad_bottom >= 14:
        mask[-(pad_bottom // 14) :, :] = False

    crops = [torch.nn.functional.interpolate(pixels[None], (448, 448), mode="bicubic", antialias=False)[0]]
    masks = [torch.ones(32, 32, dtype=torch.bool)]
    for row in range(rows):
        for column in range(columns):
            crops.append(pixels[:, 448 * row : 448 * (row + 1), 448 * column : 448 * (column + 1)])
            masks.append(mask[32 * row : 32 * (row + 1), 32 * column : 32 * (column + 1)])
    useful = mask[::2, ::2]
    tokens = 256 + 1 + int(useful.sum()) + int(useful[:, 0].sum()) + 16
    return torch.stack(crops), torch.stack(masks), tokens


@pytest.mark.parametrize(
    ("width", "height"), [(30, 20), (448, 448), (449, 447), (640, 480), (700, 1300), (5000, 300), (3100, 2400)]
)
def test_crops_masks_and_tokens_agree_step_by_step(width: int, height: int) -> None:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = PIL.Image.fromarray(pixels)
    expected_crops, expected_mask, expected_tokens = steps_one_by_one(image)
    crops = image_to_crops(image, ImageSettings())
    assert torch.equal(crops.crops, expected_crops)
    assert torch.equal(crops.mask, expected_mask)
    assert num_image_tokens(crops) == expected_tokens
