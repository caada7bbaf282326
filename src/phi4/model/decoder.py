"""The language model: a decoder with grouped-query attention, partial LongRoPE and a tied head."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from phi4.config import AdapterConfig, DecoderConfig
from phi4.errors import InputError
from phi4.inputs import Medium
from phi4.kernels.decoder_layers import DecoderLayers, LayerWeights
from phi4.model.attention import causal_attention
from phi4.model.embedding import empty_embedding
from phi4.model.fused import rms_norm, swiglu
from phi4.model.linear import linear
from phi4.model.lora import AdaptedLinear
from phi4.model.quantised import QuantisedTable, QuantisedWeight
from phi4.model.rope import RotaryTables, rotate
from phi4.model.step import AdapterRun, Outputs, Segment, Step, build_step

NO_ADAPTERS: Mapping[str, AdapterConfig] = MappingProxyType({})


def _bits(config: DecoderConfig, linear_name: str, layer: int) -> int | None:
    """Bits of a layer's linear, one of `ADAPTED_LINEARS`; None if it is not quantised."""
    return config.quantisation.linear_bits[linear_name][layer] if config.quantisation is not None else None


def _new_table(config: DecoderConfig) -> QuantisedTable | None:
    """An empty quantised embedding or head; None for a model that is not quantised."""
    if config.quantisation is None:
        return None
    return QuantisedTable(config.vocab_size, config.hidden_size, config.quantisation.table_bits)


class RMSNorm(nn.Module):
    """Root-mean-square norm: fp32 inside, the weight applied after the cast back (facts sheet 1.3)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.eps = eps

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Normalises the last axis of [tokens, hidden]."""
        return rms_norm(hidden, self.weight, self.eps)


class Attention(nn.Module):
    """Grouped-query self-attention with one fused projection for queries, keys and values."""

    def __init__(self, config: DecoderConfig, adapters: Mapping[str, AdapterConfig], layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        self.num_heads, self.num_kv_heads = config.num_attention_heads, config.num_key_value_heads
        num_fused_heads = self.num_heads + 2 * self.num_kv_heads
        sizes = config.hidden_size, num_fused_heads * self.head_dim, self.num_heads * self.head_dim
        self.qkv_proj = AdaptedLinear(sizes[0], sizes[1], adapters, _bits(config, "self_attn.qkv_proj", layer))
        self.o_proj = AdaptedLinear(sizes[2], sizes[0], adapters, _bits(config, "self_attn.o_proj", layer))

    def attend(self, hidden: torch.Tensor, step: Step) -> torch.Tensor:
        """Attends within each segment's own conversation: [tokens, hidden] -> [tokens, heads * head_dim].

        `o_proj` comes next; the layer applies it, to the rows that it goes on with.
        """
        heads = self.qkv_proj(hidden, step.adapter_runs).view(hidden.shape[0], -1, self.head_dim)
        rotating, values = heads.split([self.num_heads + self.num_kv_heads, self.num_kv_heads], dim=1)
        rotated = rotate(rotating, step.cos, step.sin)
        queries, keys = rotated.split([self.num_heads, self.num_kv_heads], dim=1)
        if step.paged is not None:
            return step.paged.attend(self.layer, queries, keys, values)
        if step.packed is not None:
            return step.packed.attend(queries, keys, values)
        lengths = [segment.length for segment in step.segments]
        parts = zip(queries.split(lengths), keys.split(lengths), values.split(lengths), strict=True)
        histories: list[tuple[torch.Tensor, torch.Tensor]] = []
        attended = []
        for segment, (own_queries, own_keys, own_values) in zip(step.segments, parts, strict=True):
            histories.append(self._history(segment, own_keys, own_values, histories))
            attended.append(causal_attention(own_queries, *histories[-1]))
        return torch.cat(attended)

    def _history(
        self,
        segment: Segment,
        keys: torch.Tensor,
        values: torch.Tensor,
        earlier: Sequence[tuple[torch.Tensor, torch.Tensor]],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of a conversation up to the end of this segment, each [kv_heads, history, head_dim]."""
        if segment.cache is not None:
            return segment.cache.write(self.layer, segment.cached, keys, values)
        keys, values = keys.transpose(0, 1), values.transpose(0, 1)
        if segment.prefix is None:
            return keys, values
        prefix_keys, prefix_values = earlier[segment.prefix]
        return torch.cat((prefix_keys, keys), dim=1), torch.cat((prefix_values, values), dim=1)


class MLP(nn.Module):
    """SwiGLU with one fused projection; the gate comes first (facts sheet 1.2)."""

    def __init__(self, config: DecoderConfig, adapters: Mapping[str, AdapterConfig], layer: int) -> None:
        super().__init__()
        hidden, inner = config.hidden_size, config.intermediate_size
        self.gate_up_proj = AdaptedLinear(hidden, 2 * inner, adapters, _bits(config, "mlp.gate_up_proj", layer))
        self.down_proj = AdaptedLinear(inner, hidden, adapters, _bits(config, "mlp.down_proj", layer))

    def forward(self, hidden: torch.Tensor, runs: tuple[AdapterRun, ...]) -> torch.Tensor:
        """[tokens, hidden] -> [tokens, hidden]."""
        return self.down_proj(swiglu(self.gate_up_proj(hidden, runs)), runs)


class DecoderLayer(nn.Module):
    """Attention and MLP, each behind a norm and added to the residual stream."""

    def __init__(self, config: DecoderConfig, adapters: Mapping[str, AdapterConfig], layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, adapters, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config, adapters, layer)

    def forward(self, hidden: torch.Tensor, step: Step, outputs: Outputs | None = None) -> torch.Tensor:
        """[tokens, hidden] -> [tokens, hidden], or only the rows of `outputs`, [rows, hidden].

        Every row's keys and values are needed by later tokens; what follows the attention is for the row itself.
        """
        attended = self.self_attn.attend(self.input_layernorm(hidden), step)
        runs = step.adapter_runs
        if outputs is not None:
            hidden, attended, runs = hidden[outputs.rows], attended[outputs.rows], outputs.adapter_runs
        hidden = hidden + self.self_attn.o_proj(attended, runs)
        return hidden + self.mlp(self.post_attention_layernorm(hidden), runs)

    def for_layers(self) -> LayerWeights:
        """What the kernel of whole layers takes."""
        return LayerWeights(
            self.input_layernorm.weight.detach(),
            self.self_attn.qkv_proj.for_layers(),
            self.self_attn.o_proj.for_layers(),
            self.post_attention_layernorm.weight.detach(),
            self.mlp.gate_up_proj.for_layers(),
            self.mlp.down_proj.for_layers(),
            self.input_layernorm.eps,
        )


class Decoder(nn.Module):
    """Token embedding, layers and the final norm."""

    def __init__(self, config: DecoderConfig, adapters: Mapping[str, AdapterConfig]) -> None:
        super().__init__()
        self.embed_tokens = _new_table(config) or empty_embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, adapters, layer) for layer in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, embeddings: torch.Tensor, step: Step, native: DecoderLayers | None = None) -> torch.Tensor:
        """[tokens, hidden] -> [tokens, hidden] or [rows asked for, hidden], normalised for the head."""
        hidden, done = embeddings, 0
        if native is not None and step.paged is not None:
            # The last layer spares itself the rows that are not asked for.
            done = len(self.layers) - (step.outputs is not None)
            runs = [(run.adapter, run.start, run.stop) for run in step.adapter_runs]
            hidden = native.run(done, hidden, step.cos, step.sin, step.paged, runs)
        for layer in self.layers[done:-1]:
            hidden = checkpoint(layer, hidden, step, use_reentrant=False) if step.recompute else layer(hidden, step)
        if done < len(self.layers):
            hidden = self.layers[-1](hidden, step, step.outputs)
        return self.norm(hidden)


class Phi4Mini(nn.Module):
    """Phi-4-Mini, or any Llama- or Phi-3-shaped language model with other numbers."""

    def __init__(self, config: DecoderConfig, adapters: Mapping[str, AdapterConfig] = NO_ADAPTERS) -> None:
        super().__init__()
        self.config = config
        self.tables = RotaryTables.from_config(config)
        self.model = Decoder(config, adapters)
        if not config.tie_word_embeddings:
            self.lm_head = _new_table(config) or nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    @property
    def decoder_config(self) -> DecoderConfig:
        """Sizes of the language model."""
        return self.config

    @property
    def dtype(self) -> torch.dtype:
        """Type of activations, and of weights that are not quantised."""
        return self.model.norm.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.norm.weight.device

    def step(
        self, segments: Sequence[Segment], output_rows: Sequence[int] | None = None, recompute: bool = False
    ) -> Step:
        """Prepares one forward pass over these segments, laid end to end.

        Args:
            segments: what the pass adds to each conversation.
            output_rows: packed rows whose output is asked for; None asks for all.
            recompute: see `Step.recompute`; for training.
        """
        return build_step(segments, self.tables, self.dtype, self.device, output_rows, recompute)

    def adapter_for(self, modalities: frozenset[str]) -> str | None:
        """A bare language model takes text only.

        Raises:
            InputError: the conversation holds a picture or a sound.
        """
        if modalities:
            raise InputError(
                f"this model has no {' and no '.join(sorted(modalities))}: it takes text only. "
                "Load a multimodal checkpoint, or add a pack for the modality"
            )
        return None

    def encode(self, medium: Medium, adapter: str | None) -> torch.Tensor:
        """Refuses every medium; here so that both models are used alike."""
        self.adapter_for(frozenset({medium.modality}))
        raise AssertionError("unreachable: adapter_for refuses every modality")

    def encode_together(self, media: Sequence[Medium], adapters: Sequence[str | None]) -> list[torch.Tensor]:
        """Refuses every medium, as `encode` does."""
        return [self.encode(medium, adapter) for medium, adapter in zip(media, adapters, strict=True)]

    def embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Looks up [tokens] ids: [tokens, hidden]."""
        return self.model.embed_tokens(token_ids).to(self.dtype)

    def native_layers(self) -> DecoderLayers | None:
        """The layers as one native call takes them, for who leaves the weights where they are; None without kernels."""
        own = (layer for layer in self.model.layers if isinstance(layer, DecoderLayer))
        layers = DecoderLayers([layer.for_layers() for layer in own])
        return layers if layers.fits else None

    def forward(self, embeddings: torch.Tensor, step: Step, native: DecoderLayers | None = None) -> torch.Tensor:
        """Runs the layers over packed rows.

        Args:
            embeddings: [tokens, hidden], the features of media already in their places.
            step: segments, rotary tables and adapters of this pass.
            native: `native_layers`, which run where all conversations are in a cache, to the same bits; None runs the
                layers one by one.

        Returns:
            Final hidden states, [tokens, hidden] or [rows that the step asks for, hidden]; `logits` turns them into
            scores.
        """
        return self.model(embeddings, step, native)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores the vocabulary for the rows asked for: [rows, hidden] -> [rows, vocabulary]."""
        return linear(hidden, self.head_weight)

    @property
    def head_weight(self) -> torch.Tensor | QuantisedWeight:
        """The output embedding that `logits` multiplies with, [vocabulary, hidden]; the token embedding if tied."""
        head = self.model.embed_tokens if self.config.tie_word_embeddings else self.lm_head
        return head.weight
