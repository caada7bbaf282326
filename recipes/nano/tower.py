"""Where nano's vision tower starts: patches that vary alike, and heads that look at neighbours.

A tower that starts at random spends most of its pictures on finding out that neighbouring patches belong together.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from phi4.checkpoint.new_pack import plane_waves
from phi4.data.shards import ShardedRecords
from phi4.processing.image import image_to_crops
from phi4.processing.image_file import load_image
from phi4.processing.settings import ImageSettings

# The deviations of patches settle long before so many pictures.
NUM_PICTURES = 1000

# What is added to the variance of every direction of a patch, as a share of their mean: without it, the faintest detail
# would be as loud as an outline.
WHITENING_FLOOR = 0.02

# Radians per patch, of the slowest and the fastest wave that tells where a patch is.
FREQUENCIES = (0.3, 3.0)
POSITION_AMPLITUDE = 2.0
# With it, nearly all attention goes to one place.
SHARPNESS = 2.0
# What attention and MLP add to a patch, at first, relative to the patch.
SHARE_ADDED = 0.5

# Rows and columns from a patch to its neighbours, straight ones first.
NEIGHBOURS = ((0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (-1, -1), (1, -1), (-1, 1))


def begin_tower(
    config: Mapping[str, Any], crop_size_px: int, collections: Sequence[ShardedRecords]
) -> dict[str, torch.Tensor]:
    """Makes the weights of a tower that do not start at random.

    Args:
        config: its part of the pack's config, `img_processor`.
        crop_size_px: side of a crop.
        collections: the data whose training pictures the patches are measured on.
    """
    width, patch_px = config["hidden_size"], config["patch_size"]
    weight, bias = whiten_patches(collections, crop_size_px, patch_px, width)
    frequencies = torch.linspace(*FREQUENCIES, width // 4)
    given = {
        "patch_embedding.weight": weight,
        "patch_embedding.bias": bias,
        "position_embedding.weight": POSITION_AMPLITUDE * plane_waves(crop_size_px // patch_px, frequencies),
    }
    generator = torch.Generator().manual_seed(1)
    heads = config["num_attention_heads"]
    for layer in range(config["num_hidden_layers"]):
        neighbours = [NEIGHBOURS[(layer * heads + head) % len(NEIGHBOURS)] for head in range(heads)]
        queries, keys = look_at(neighbours, width, frequencies, generator)
        values, outputs = (nn.init.orthogonal_(torch.empty(width, width), generator=generator) for _ in range(2))
        inner = config["intermediate_size"]
        shrink = torch.randn(width, inner, generator=generator) * inner**-0.5
        given |= {
            f"layers.{layer}.self_attn.q_proj.weight": queries,
            f"layers.{layer}.self_attn.k_proj.weight": keys,
            f"layers.{layer}.self_attn.v_proj.weight": values,
            f"layers.{layer}.self_attn.out_proj.weight": SHARE_ADDED * outputs,
            f"layers.{layer}.mlp.fc2.weight": SHARE_ADDED * shrink,
        }
    return {f"vision.encoder.{name}": tensor for name, tensor in given.items()}


def whiten_patches(
    collections: Sequence[ShardedRecords], crop_size_px: int, patch_px: int, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """A patch embedding whose outputs vary alike and independently: most patches are nearly plain, and say little.

    Returns:
        The strongest directions of the patches of training pictures, scaled, [width, 3, patch, patch], and a bias that
        takes away the mean, [width].
    """
    settings = ImageSettings(crop_size_px=crop_size_px, patch_size_px=patch_px)
    crops = []
    for records in collections:
        training = records.select("train")
        for record in training[:: max(1, len(training) // NUM_PICTURES)]:
            (image,) = record.messages[0].media
            crops.append(image_to_crops(load_image(image.source), settings).crops[0])
    patches = torch.stack(crops).unfold(2, patch_px, patch_px).unfold(3, patch_px, patch_px)
    vectors = patches.permute(0, 2, 3, 1, 4, 5).flatten(0, 2).flatten(1).double()
    variances, directions = torch.linalg.eigh(torch.cov(vectors.T))
    scales = (variances + WHITENING_FLOOR * variances.mean()).rsqrt()
    weight = (directions * scales).T.flip(0)[:width]
    return weight.float().view(width, 3, patch_px, patch_px), -(weight @ vectors.mean(0)).float()


def look_at(
    neighbours: Sequence[tuple[int, int]], width: int, frequencies: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and keys with which each head looks at one neighbour, by a few of the waves of `plane_waves`.

    A query is the key turned by the angle of each wave between the two places.

    Returns:
        Their weights, each [width, width].
    """
    waves = len(frequencies)
    head_dim = width // len(neighbours)
    queries, keys = torch.zeros(width, width), torch.zeros(width, width)
    row = 0
    for neighbour in neighbours:
        for axis, distance in enumerate(neighbour):
            for wave in torch.randperm(waves, generator=generator)[: head_dim // 4].tolist():
                sine, cosine = 2 * axis * waves + wave, (2 * axis + 1) * waves + wave
                angle = frequencies[wave] * distance
                keys[row, sine] = keys[row + 1, cosine] = SHARPNESS
                queries[row, sine] = queries[row + 1, cosine] = SHARPNESS * angle.cos()
                queries[row, cosine], queries[row + 1, sine] = SHARPNESS * angle.sin(), -SHARPNESS * angle.sin()
                row += 2
    return queries, keys
