"""Vision: the SigLIP tower, 2 x 2 pooling, the merge of tiles and global view, and the projector."""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from phi4.config import VisionConfig
from phi4.inputs import ImageCrops
from phi4.kernels.encoder import Ending
from phi4.model.embedding import empty_embedding
from phi4.model.encoder_attention import EncoderAttention
from phi4.model.encoder_batches import rounds_with_company, split_batches
from phi4.model.encoder_steps import layer_norm, project
from phi4.model.projectors import Projector
from phi4.model.quantised import new_linear

# Small pictures pass together as long as they take no more memory than the release's largest does by itself: 36 tiles
# and the global view (facts sheet 4.3) of 32 x 32 patches each.
MAX_PATCHES_TOGETHER = 37 * 32**2


class Vision(nn.Module):
    """From the crops of pictures to the rows that replace their placeholders."""

    def __init__(self, config: VisionConfig, hidden_size: int) -> None:
        super().__init__()
        self.encoder = SiglipEncoder(config)
        self.separator = nn.Parameter(torch.empty(1, 1, config.hidden_size))
        self.row_separator = nn.Parameter(torch.empty(1, 1, 1, config.hidden_size))
        self.projector = Projector(config.hidden_size, hidden_size)

    def forward(self, image: ImageCrops) -> torch.Tensor:
        """Encodes one picture: [image tokens, hidden of the language model].

        The order is tiles, separator, global view, and the separators go through the projector too (facts sheet 4.4).
        """
        (rows,) = self._encode_batch([image])
        return rows

    def encode_together(self, images: Sequence[ImageCrops]) -> list[torch.Tensor]:
        """Encodes pictures as `forward` would, several in a pass unless company would change bits.

        No crop sees another.
        """
        encoded: dict[int, torch.Tensor] = {}
        max_patches = 0 if rounds_with_company(self.encoder.patch_embedding.weight) else MAX_PATCHES_TOGETHER
        for batch in split_batches([image.mask.numel() for image in images], max_patches):
            members = [images[place] for place in batch]
            rows = self._encode_batch(members) if len(members) > 1 else [self(members[0])]
            encoded.update(zip(batch, rows, strict=True))
        return [encoded[place] for place in range(len(images))]

    def _encode_batch(self, images: Sequence[ImageCrops]) -> list[torch.Tensor]:
        weight = self.encoder.patch_embedding.weight
        crops = torch.cat([image.crops for image in images]).to(weight.device, weight.dtype)
        # Where pictures lie is read from the masks before they go to a device that would have to be waited for.
        masks = torch.cat([image.mask for image in images])
        patches = self.encoder(crops, masks.to(weight.device))
        pooled = pool_patches(patches, masks.shape[-1])
        places = [place_rows(image) for image in images]
        first = 0
        for image, own in zip(images, places, strict=True):
            own[own >= 0] += first
            first += image.crops.shape[0] * pooled.shape[1] * pooled.shape[2]
        # The two separators stand at the end, where the places -2 and -1 are.
        table = torch.cat((pooled.flatten(0, 2), self.row_separator.flatten(0, 2), self.separator.flatten(0, 1)))
        rows = functional.embedding((torch.cat(places) % len(table)).to(weight.device), table)
        return [self.projector(own) for own in rows.split([len(own) for own in places])]


# Places of the separators in `place_rows`.
ROW_SEPARATOR, SEPARATOR = -2, -1


def place_rows(image: ImageCrops) -> torch.Tensor:
    """What each row of a picture is made of: tiles, separator, global view, a row separator behind every grid row.

    Args:
        image: its mask says how much of the tiles is picture.

    Returns:
        Indices into the pooled patches of the picture's crops, crop by crop, or those of the separators, [rows].
    """
    num_crops, side = len(image.mask), image.mask.shape[-1] // 2
    grids = torch.arange(num_crops * side * side).view(num_crops, side, side, 1)
    tiles = join_tiles(grids[1:], image.rows, image.columns)
    useful = join_tiles(image.mask[1:, ::2, ::2, None], image.rows, image.columns)[..., 0]
    tiles = tiles[: int(useful[:, 0].sum()), : int(useful[0, :].sum())]
    return torch.cat((_end_rows(tiles), torch.tensor([SEPARATOR]), _end_rows(grids[0])))


def _end_rows(grid: torch.Tensor) -> torch.Tensor:
    """Puts the row separator behind every row: [rows, columns, 1] -> [rows * (columns + 1)]."""
    return functional.pad(grid[..., 0], (0, 1), value=ROW_SEPARATOR).flatten()


def pool_patches(patches: torch.Tensor, side: int) -> torch.Tensor:
    """Averages 2 x 2 neighbours, masked or not (facts sheet 4.4).

    Args:
        patches: [crops, side * side, width].
        side: patches along one side of a crop.

    Returns:
        [crops, side / 2, side / 2, width].
    """
    grid = patches.view(-1, side, side, patches.shape[-1]).permute(0, 3, 1, 2)
    return functional.avg_pool2d(grid, kernel_size=2).permute(0, 2, 3, 1)


def join_tiles(tiles: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Lays tiles side by side: [rows * columns, side, side, width] -> [rows * side, columns * side, width]."""
    _, side, _, width = tiles.shape
    grid = tiles.reshape(rows, columns, side, side, width).transpose(1, 2)
    return grid.reshape(rows * side, columns * side, width)


def position_ids(mask: torch.Tensor) -> torch.Tensor:
    """Places the valid patches of each crop on the whole grid, stretched where a crop is partly masked.

    Row k of nb valid rows takes bucket floor(side * k / nb), columns likewise; masked patches keep position 0
    (facts sheet 4.2).

    Args:
        mask: bool, True = valid, [crops, side, side].

    Returns:
        [crops, side * side].
    """
    side = mask.shape[-1]
    index = torch.arange(side, device=mask.device)
    row_buckets = side * index // mask[:, :, 0].sum(1, keepdim=True)
    column_buckets = side * index // mask[:, 0, :].sum(1, keepdim=True)
    positions = row_buckets[:, :, None] * side + column_buckets[:, None, :]
    return positions.masked_fill(~mask, 0).flatten(1)


class SiglipEncoder(nn.Module):
    """The SigLIP tower.

    The language model takes the features of `forward`. What lies behind the feature layer is stored as in the release;
    it only runs in `summarise`, for contrastive training.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.num_feature_layers = config.num_feature_layers
        self.patch_embedding = nn.Conv2d(3, config.hidden_size, config.patch_size, stride=config.patch_size)
        self.position_embedding = empty_embedding(config.patches_per_side**2, config.hidden_size)
        self.layers = nn.ModuleList(SiglipLayer(config) for _ in range(config.num_hidden_layers))
        self.post_layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.head = PoolingHead(config)

    def forward(self, crops: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Encodes crops with bidirectional attention.

        Args:
            crops: normalised pixels, [crops, 3, side, side].
            mask: bool, True = patch holds picture, [crops, patches, patches].

        Returns:
            [crops, patches * patches, width], without a final norm.
        """
        hidden = self._embed_patches(crops)
        hidden = hidden + self.position_embedding(position_ids(mask))
        bias = None
        if not bool(mask.all()):
            bias = torch.zeros_like(mask, dtype=hidden.dtype).masked_fill(~mask, -math.inf).flatten(1)[:, None, None, :]
        for layer in self.layers[: self.num_feature_layers]:
            hidden = layer(hidden, bias)
        return hidden

    def _embed_patches(self, crops: torch.Tensor) -> torch.Tensor:
        """The convolution as the linear layer that it is, since its stride is its kernel: [crops, patches, width]."""
        size, _ = self.patch_embedding.kernel_size
        patches = crops.unflatten(3, (-1, size)).unflatten(2, (-1, size)).permute(0, 2, 4, 1, 3, 5).flatten(3)
        weight = self.patch_embedding.weight.flatten(1)
        assert self.patch_embedding.bias is not None
        return project(patches.flatten(1, 2), weight, Ending(self.patch_embedding.bias))

    def summarise(self, features: torch.Tensor) -> torch.Tensor:
        """Makes one vector of a crop, with the remaining layers, the last norm and the head.

        Args:
            features: of crops that are all picture, from `forward`, [crops, patches * patches, width].

        Returns:
            [crops, width].
        """
        for layer in self.layers[self.num_feature_layers :]:
            features = layer(features, None)
        return self.head(self.post_layernorm(features))


class SiglipLayer(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.self_attn = EncoderAttention(config.hidden_size, config.num_attention_heads, config.linear_bits)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = SiglipMLP(config)

    def forward(self, hidden: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """[crops, patches, width] -> [crops, patches, width], with a bias as for the attention."""
        hidden = self.self_attn(layer_norm(hidden, self.layer_norm1), bias, residual=hidden)
        return self.mlp(layer_norm(hidden, self.layer_norm2), residual=hidden)


class SiglipMLP(nn.Module):
    """Two linears around a tanh-approximated GELU."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.fc1 = new_linear(config.hidden_size, config.intermediate_size, config.linear_bits)
        self.fc2 = new_linear(config.intermediate_size, config.hidden_size, config.linear_bits)

    def forward(self, hidden: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """[..., width] -> [..., width], added to the residual."""
        inner = project(hidden, self.fc1.weight, Ending(self.fc1.bias, "gelu"))
        return project(inner, self.fc2.weight, Ending(self.fc2.bias, residual=residual))


class PoolingHead(nn.Module):
    """SigLIP's summary of a crop: a learned probe attends to all patches. Only contrastive training runs it."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.empty(1, 1, config.hidden_size))
        self.attention = nn.MultiheadAttention(config.hidden_size, config.num_attention_heads, batch_first=True)
        self.layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = SiglipMLP(config)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """[crops, patches, width] -> [crops, width]."""
        probe = self.probe.expand(patches.shape[0], -1, -1)
        hidden = self.attention(probe, patches, patches, need_weights=False)[0]
        return self.mlp(layer_norm(hidden, self.layernorm), residual=hidden)[:, 0]
