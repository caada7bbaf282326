"""Speech: the convolutional front end, the conformer encoder and the two projectors."""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from phi4.config import SpeechConfig
from phi4.errors import ConfigError
from phi4.inputs import AudioFrames
from phi4.kernels.encoder import Ending
from phi4.kernels.quantised import BLOCK_OUTPUTS
from phi4.model.encoder_attention import EncoderAttention
from phi4.model.encoder_batches import rounds_with_company, split_batches
from phi4.model.encoder_steps import convolve, downsample, layer_norm, project
from phi4.model.projectors import Projector
from phi4.model.quantised import QuantisedLinear, new_linear

# Longer clips are cut into independent chunks of this many tokens (40 s; facts sheet 5.3).
MAX_CHUNK_TOKENS = 500

# Frames of a pass times the values that the subsampling makes of each 8 of them: in the release, 1024 channels of 10
# mels and 4,000 frames.
MAX_VALUES_TOGETHER = 4_000 * 10_240


class Speech(nn.Module):
    """From the log-mel frames of one clip to the rows that replace its placeholders."""

    def __init__(self, config: SpeechConfig, hidden_size: int) -> None:
        super().__init__()
        self.encoder = ConformerEncoder(config)
        self.projectors = nn.ModuleDict(
            {name: Projector(config.hidden_size, hidden_size) for name in ("speech", "vision")}
        )

    def forward(self, audio: AudioFrames, projector: str) -> torch.Tensor:
        """Encodes one clip.

        Args:
            audio: its features.
            projector: "speech", or "vision" where the conversation also holds a picture (facts sheet 6.3).

        Returns:
            [audio tokens, hidden of the language model], one token per 80 ms.
        """
        mean = self.encoder.global_mean
        frames = audio.frames.to(mean.device, mean.dtype)
        return self.projectors[projector](self.encoder(frames))

    def encode_together(self, sounds: Sequence[AudioFrames], projectors: Sequence[str]) -> list[torch.Tensor]:
        """Encodes clips as `forward` would, short ones several in a pass.

        A pass takes no more memory, padding included, than a window in which a long clip passes does in the release.
        Where company would change bits, each passes alone.

        Args:
            sounds: the clips.
            projectors: of each.
        """
        mean = self.encoder.global_mean
        window = MAX_CHUNK_TOKENS * self.encoder.subsampling.time_reduction
        max_frames = max(window, MAX_VALUES_TOGETHER // self.encoder.subsampling.out.in_features)
        if rounds_with_company(mean):
            max_frames = 0
        lengths = [audio.frames.shape[0] for audio in sounds]
        sizes = [length if length <= window else max_frames + 1 for length in lengths]  # a longer clip passes alone
        encoded: dict[int, torch.Tensor] = {}
        for batch in split_batches(sizes, max_frames):
            if len(batch) == 1:
                encoded[batch[0]] = self(sounds[batch[0]], projectors[batch[0]])
                continue
            clips = self.encoder.encode_clips([sounds[place].frames.to(mean.device, mean.dtype) for place in batch])
            encoded |= {
                place: self.projectors[projectors[place]](clip) for place, clip in zip(batch, clips, strict=True)
            }
        return [encoded[place] for place in range(len(sounds))]


class ConformerEncoder(nn.Module):
    """Normalisation, subsampling by 8 and the conformer blocks."""

    global_mean: torch.Tensor
    global_invstd: torch.Tensor

    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        self.register_buffer("global_mean", torch.empty(config.input_size))
        self.register_buffer("global_invstd", torch.empty(config.input_size))
        self.subsampling = Subsampling(config)
        self.relative_attention_bias = RelativeAttentionBias(config)
        self.blocks = nn.ModuleList(ConformerBlock(config) for _ in range(config.num_blocks))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Encodes one clip: [frames, mels] -> [tokens, width].

        A clip of more than 500 tokens is zero-padded to a multiple of 500 and cut; no context crosses a cut. The zero
        tail of the last chunk is attended to, as in the release for a single clip (facts sheet 5.3).
        """
        hidden = self.subsampling((frames - self.global_mean) * self.global_invstd)
        num_tokens = hidden.shape[0]
        chunk = min(num_tokens, MAX_CHUNK_TOKENS)
        hidden = functional.pad(hidden, (0, 0, 0, -num_tokens % chunk)).unflatten(0, (-1, chunk))
        bias = self.relative_attention_bias(chunk).contiguous()
        for block in self.blocks:
            hidden = block(hidden, bias)
        return hidden.flatten(0, 1)[:num_tokens]

    def encode_clips(self, clips: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Encodes clips as `forward` would, in one pass if all are short.

        Args:
            clips: frames of each, [frames, mels].

        Returns:
            For each clip, [tokens, width].
        """
        if max(frames.shape[0] for frames in clips) > MAX_CHUNK_TOKENS * self.subsampling.time_reduction:
            return [self(frames) for frames in clips]
        normal = [(frames - self.global_mean) * self.global_invstd for frames in clips]
        hidden, inside = self.subsampling.forward_clips(normal)
        # The convolutions of the blocks look to the left only: padding at the end is to be hidden from attention alone.
        bias = self.relative_attention_bias(hidden.shape[1]).masked_fill(~inside[:, None, None, :], -math.inf)
        for block in self.blocks:
            hidden = block(hidden, bias)
        reduction = self.subsampling.time_reduction
        return [own[: -(-len(frames) // reduction)] for own, frames in zip(hidden, clips, strict=True)]


class Subsampling(nn.Module):
    """Stride-2 convolutions over time and mel, then a linear layer: one token per 8 frames (80 ms)."""

    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        self.time_reduction = config.time_reduction
        channels = config.conv_channels
        layers: list[nn.Module] = [nn.Conv2d(1, channels, 3, stride=2, padding=1), nn.ReLU()]
        for _ in range(config.num_subsampling_convolutions - 1):
            layers += [
                nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels),
                nn.Conv2d(channels, channels, 1),
                nn.ReLU(),
            ]
        self.conv = nn.Sequential(*layers)
        self.out = nn.Linear(channels * config.subsampled_mels, config.hidden_size)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """[frames, mels] -> [ceil(frames / 8), width].

        Long clips pass in windows: the first convolution alone turns 30 minutes into 7 GB. A window begins one token
        early, so that what its left edge pads with zeros is thrown away; to the right the convolutions look no
        further than their own 8 frames.
        """
        window = MAX_CHUNK_TOKENS * self.time_reduction
        parts = [self._convolve(frames[:window])]
        for start in range(window, frames.shape[0], window):
            parts.append(self._convolve(frames[start - self.time_reduction : start + window])[1:])
        return self._project(torch.cat(parts))

    def forward_clips(self, clips: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Subsamples short clips in one pass, each as `forward` would.

        Args:
            clips: frames of each, [frames, mels].

        Returns:
            [clips, tokens, width], padded at the end, and which tokens are a clip's own: bool, [clips, tokens].
        """
        hidden = nn.utils.rnn.pad_sequence(list(clips), batch_first=True)[..., None]
        lengths = torch.tensor([frames.shape[0] for frames in clips], device=hidden.device)
        inside = lengths.new_empty(0)
        for convolution, pointwise in self._stages():
            hidden = downsample(hidden, convolution, pointwise)
            # Behind a clip's end a convolution must find the zeros that it pads a single clip with.
            lengths = (lengths + 1) // 2
            inside = torch.arange(hidden.shape[1], device=hidden.device) < lengths[:, None]
            hidden = hidden * inside[:, :, None, None]
        return self._project(hidden), inside

    def _stages(self) -> list[tuple[nn.Conv2d, nn.Conv2d | None]]:
        """What halves frames and mels, and what mixes the channels then; the release keeps all in one row."""
        first, *rest = (layer for layer in self.conv if isinstance(layer, nn.Conv2d))
        return [(first, None), *zip(rest[::2], rest[1::2], strict=True)]

    def _convolve(self, frames: torch.Tensor) -> torch.Tensor:
        """[frames, mels] -> [tokens, mels / 8, channels]."""
        hidden = frames[None, ..., None]
        for convolution, pointwise in self._stages():
            hidden = downsample(hidden, convolution, pointwise)
        return hidden[0]

    def _project(self, hidden: torch.Tensor) -> torch.Tensor:
        """[..., mels / 8, channels] -> [..., width]; the layer wants all mels of a channel side by side."""
        return project(hidden.transpose(-1, -2).flatten(-2), self.out.weight, Ending(self.out.bias))


class RelativeAttentionBias(nn.Module):
    """One learned value per head and clamped distance, shared by all blocks."""

    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        self.max_distance = config.bias_max_distance
        self.weight = nn.Parameter(torch.empty(2 * config.bias_max_distance, config.num_attention_heads))

    def forward(self, num_tokens: int) -> torch.Tensor:
        """[heads, tokens (query), tokens (key)]: index clamp(key - query, -500, 499) + 500 (facts sheet 5.3)."""
        index = torch.arange(num_tokens, device=self.weight.device)
        distance = (index[None, :] - index[:, None]).clamp(-self.max_distance, self.max_distance - 1)
        return self.weight[distance + self.max_distance].permute(2, 0, 1)


class ConformerBlock(nn.Module):
    """Half a feed-forward, attention, convolution, half a feed-forward, norm."""

    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        self.feed_forward_in = ConformerFeedForward(config)
        self.layer_norm_att = nn.LayerNorm(config.hidden_size)
        self.self_attn = EncoderAttention(config.hidden_size, config.num_attention_heads, config.linear_bits)
        self.conv = ConformerConvolution(config)
        self.feed_forward_out = ConformerFeedForward(config)
        self.layer_norm = nn.LayerNorm(config.hidden_size)

    def forward(self, hidden: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """[chunks, tokens, width] -> [chunks, tokens, width]."""
        hidden = self.feed_forward_in(hidden)
        hidden = self.self_attn(layer_norm(hidden, self.layer_norm_att), bias, residual=hidden)
        hidden = self.conv(hidden)
        hidden = self.feed_forward_out(hidden)
        return layer_norm(hidden, self.layer_norm)


class ConformerFeedForward(nn.Module):
    """Gated feed-forward; here the value comes first and the gate second (facts sheet 5.3, trap 5)."""

    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        # Values and gates are multiplied by themselves where they are quantised: each must be whole blocks.
        if config.linear_bits is not None and config.intermediate_size % BLOCK_OUTPUTS:
            raise ConfigError(
                f"a gated linear of linear_units {config.intermediate_size} cannot be quantised: "
                f"they must be a multiple of {BLOCK_OUTPUTS}"
            )
        self.layer_norm = nn.LayerNorm(config.hidden_size)
        self.value_gate_proj = new_linear(config.hidden_size, 2 * config.intermediate_size, config.linear_bits)
        self.down_proj = new_linear(config.intermediate_size, config.hidden_size, config.linear_bits)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[chunks, tokens, width] -> [chunks, tokens, width]; half of the result is added to what came in."""
        up, down = self.value_gate_proj, self.down_proj
        inner = project(layer_norm(hidden, self.layer_norm), up.weight, Ending(up.bias, "silu", gated=True))
        return project(inner, down.weight, Ending(down.bias, scale=0.5, residual=hidden))


class PointwiseConvolution(nn.Conv1d):
    """A convolution of kernel 1, stored as the release stores it and run as the linear layer that it is."""

    bias: nn.Parameter

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, kernel_size=1)

    @property
    def matrix(self) -> torch.Tensor:
        """[out_features, in_features]."""
        return self.weight[..., 0]


def new_pointwise(inputs: int, outputs: int, bits: int | None) -> PointwiseConvolution | QuantisedLinear:
    """An empty pointwise convolution; bits are None for one that is not quantised."""
    return PointwiseConvolution(inputs, outputs) if bits is None else QuantisedLinear(inputs, outputs, bits)


class ConformerConvolution(nn.Module):
    """Gated pointwise, causal depthwise and two more pointwise convolutions behind a norm."""

    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.layer_norm = nn.LayerNorm(width)
        self.glu = GatedPointwise(width, config.linear_bits)
        self.depthwise = nn.Conv1d(width, width, config.kernel_size, groups=width)
        self.pointwise = new_pointwise(width, width, config.linear_bits)
        self.output = new_pointwise(width, width, config.linear_bits)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[chunks, tokens, width] -> [chunks, tokens, width], added to what came in.

        Token t sees t and the kernel_size - 1 before it.
        """
        mixed = convolve(self.glu(layer_norm(hidden, self.layer_norm)), self.depthwise)
        inner = project(mixed, self.pointwise.matrix, Ending(self.pointwise.bias, "silu"))
        return project(inner, self.output.matrix, Ending(self.output.bias, residual=hidden))


class GatedPointwise(nn.Module):
    """(first half + b1) * swish(second half + b2) of a pointwise convolution."""

    def __init__(self, width: int, bits: int | None) -> None:
        super().__init__()
        self.pointwise = new_pointwise(width, 2 * width, bits)
        self.b1 = nn.Parameter(torch.empty(1, width, 1))
        self.b2 = nn.Parameter(torch.empty(1, width, 1))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[chunks, tokens, width] -> [chunks, tokens, width]."""
        bias = self.pointwise.bias + torch.cat((self.b1, self.b2), dim=1).flatten()
        return project(hidden, self.pointwise.matrix, Ending(bias, "silu", gated=True))
