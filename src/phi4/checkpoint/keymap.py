"""The one table between names in files and names in our models, read both ways.

Names and shapes come from the model itself, built without memory; the table below only says which beginnings of a
name are written differently on disk. So it cannot miss a tensor: a name that no row covers is an error. Names inside
a modality from outside are its own affair and stay as they are.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import torch

from phi4.checkpoint.tensor_files import StoredTensor, list_some
from phi4.config import ADAPTED_LINEARS, ModelConfig
from phi4.errors import CheckpointError
from phi4.modality import RESERVED_NAMES
from phi4.model.decoder import Phi4Mini
from phi4.model.multimodal import Phi4Multimodal
from phi4.model.quantised import QuantisedWeight

Layout = Literal["released", "converted"]

# (beginning of our name, beginning in the file, what follows in ours -> in the release, in transformers' native model).
# N is the number of a layer; an empty name is the group itself. Facts sheet 1.2, 4.6, 5.5, 6.2.
_GROUPS = (
    ("model", "model", {"": ("", "")}),
    ("lm_head", "lm_head", {"": ("", "")}),
    ("language.lm_head", "lm_head", {"": ("", "")}),
    ("language.model", "model", {"": ("", "")}),
    (
        "language.model.layers.N",
        "model.layers.N",
        {f"{linear}.weight": (f"{linear}.base_layer.weight", f"{linear}.weight") for linear in ADAPTED_LINEARS},
    ),
    (
        "vision",
        "model.embed_tokens_extend.image_embed",
        {
            "separator": ("glb_GN", "global_img_feature_extensor"),
            "row_separator": ("sub_GN", "sub_img_feature_extensor"),
            "projector.up": ("img_projection.0", "img_projection_up"),
            "projector.down": ("img_projection.2", "img_projection_down"),
        },
    ),
    (
        "vision.encoder",
        "model.embed_tokens_extend.image_embed.img_processor",
        {
            "": ("", ""),
            "layers": ("encoder.layers", "encoder.layers"),
            "patch_embedding": ("embeddings.patch_embedding", "embeddings.patch_embedding"),
            "position_embedding": ("embeddings.position_embedding", "embeddings.position_embedding"),
        },
    ),
    (
        "speech.projectors",
        "model.embed_tokens_extend.audio_embed",
        {
            "speech.up": ("audio_projection.speech.0", "up_proj_for_speech"),
            "speech.down": ("audio_projection.speech.2", "down_proj_for_speech"),
            "vision.up": ("audio_projection.vision.0", "up_proj_for_vision_speech"),
            "vision.down": ("audio_projection.vision.2", "down_proj_for_vision_speech"),
        },
    ),
    (
        "speech.encoder",
        "model.embed_tokens_extend.audio_embed.encoder",
        {
            "global_mean": ("encoder_embedding.global_mean", "encoder_embedding.global_mean"),
            "global_invstd": ("encoder_embedding.global_invstd", "encoder_embedding.global_invstd"),
            "subsampling": ("embed", "embed"),
            "relative_attention_bias": (
                "relative_attention_bias_layer.bias_values",
                "relative_attention_bias_layer.bias_values",
            ),
        },
    ),
    (
        "speech.encoder.blocks.N",
        "model.embed_tokens_extend.audio_embed.encoder.encoders.N",
        {
            "": ("", ""),
            "feed_forward_in.value_gate_proj": ("feed_forward_in.net.0.linear", "feed_forward_in.gate_up_proj"),
            "feed_forward_in.down_proj": ("feed_forward_in.net.2", "feed_forward_in.down_proj"),
            "feed_forward_out.value_gate_proj": ("feed_forward_out.net.0.linear", "feed_forward_out.gate_up_proj"),
            "feed_forward_out.down_proj": ("feed_forward_out.net.2", "feed_forward_out.down_proj"),
            "self_attn.q_proj": ("self_attn.linear_q", "self_attn.q_proj"),
            "self_attn.k_proj": ("self_attn.linear_k", "self_attn.k_proj"),
            "self_attn.v_proj": ("self_attn.linear_v", "self_attn.v_proj"),
            "self_attn.out_proj": ("self_attn.linear_out", "self_attn.o_proj"),
            "conv.glu.pointwise": ("conv.glu.ext_pw_conv_1d", "conv.glu.ext_pw_conv_1d"),
            "conv.depthwise": ("conv.dw_sep_conv_1d.dw_conv", "conv.dw_sep_conv_1d.dw_conv"),
            "conv.pointwise": ("conv.dw_sep_conv_1d.pw_conv", "conv.dw_sep_conv_1d.pw_conv"),
            "conv.output": ("conv.ext_pw_conv_1d", "conv.ext_pw_conv_1d"),
        },
    ),
)


def _joined(*parts: str) -> str:
    return ".".join(part for part in parts if part)


# Our name -> (released name, native name). The longest row that begins a name decides, and what follows it is kept.
RENAMES: Mapping[str, tuple[str, str]] = {
    _joined(ours, row): (_joined(theirs, released), _joined(theirs, native))
    for ours, theirs, rows in _GROUPS
    for row, (released, native) in rows.items()
}


class Target(NamedTuple):
    """Where a tensor of a file belongs: the name in our model, and what it must be there.

    Attributes:
        name: in our model.
        shape: in our model.
        dtype: that it must be stored in; None for any type of numbers with a fraction.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype | None = None


def is_multimodal(config: ModelConfig) -> bool:
    """Whether the configuration asks for `Phi4Multimodal`; without any modality it is `Phi4Mini`."""
    return config.vision is not None or config.speech is not None or bool(config.adapters)


def empty_model(config: ModelConfig) -> Phi4Mini | Phi4Multimodal:
    """Builds the model of a configuration on the meta device: modules and shapes, no memory."""
    with torch.device("meta"):
        return Phi4Multimodal(config) if is_multimodal(config) else Phi4Mini(config.decoder)


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every tensor of the configuration's model, by our name."""
    return {name: tuple(tensor.shape) for name, tensor in empty_model(config).state_dict().items()}


def fixed_dtypes(config: ModelConfig) -> dict[str, torch.dtype]:
    """Returns the type of every tensor that has one of its own, by our name: those of quantised weights."""
    return {
        f"{name}.{part}": tensor.dtype
        for name, module in empty_model(config).named_modules()
        if isinstance(module, QuantisedWeight)
        for part, tensor in module.named_buffers()
    }


def adapter_of(name: str) -> str | None:
    """Returns the adapter that a name, ours or the release's, belongs to, or None if it is no LoRA of the decoder."""
    if not name.removeprefix("language.").startswith("model.layers."):
        return None
    found = re.search(r"\.lora_[AB]\.(\w+)\.", name)
    return found[1] if found else None


def modality_of(name: str) -> str:
    """Returns "language" or the modality that one of our names belongs to; an adapter belongs to its modality."""
    component = name.split(".", 1)[0]
    return adapter_of(name) or ("language" if component in ("language", "model", "lm_head") else component)


def added_of(file_name: str) -> str | None:
    """Returns the modality from outside whose encoder a name in a file belongs to, or None."""
    found = re.match(r"model\.embed_tokens_extend\.(\w+)_embed\.", file_name)
    return found[1] if found and found[1] not in RESERVED_NAMES else None


def file_name(name: str, layout: Layout) -> str:
    """Translates one of our names into the name that a layout's main files use.

    Raises:
        CheckpointError: no row of `RENAMES` covers the name.
    """
    parts = name.split(".")
    if layout == "released" and parts[0] not in RESERVED_NAMES:
        return ".".join(["model.embed_tokens_extend", f"{parts[0]}_embed", *parts[1:]])
    for length in range(len(parts), 0, -1):
        row = RENAMES.get(".".join("N" if part.isdigit() else part for part in parts[:length]))
        if row is not None:
            renamed = row[0] if layout == "released" else row[1]
            number = next((part for part in parts[:length] if part.isdigit()), "N")
            return ".".join([number if part == "N" else part for part in renamed.split(".")] + parts[length:])
    raise CheckpointError(f"{name} has no name in the {layout} layout; add a row to phi4.checkpoint.keymap.RENAMES")


def key_table(config: ModelConfig, layout: Layout) -> dict[str, Target]:
    """Returns name in file -> our name and shape, for all that a layout keeps in its main files.

    The released layout keeps the adapters there too; the converted one keeps them in PEFT folders (`adapter_table`).
    """
    dtypes = fixed_dtypes(config)
    return _bijective(
        (file_name(name, layout), Target(name, shape, dtypes.get(name)))
        for name, shape in parameter_shapes(config).items()
        if layout == "released" or adapter_of(name) is None
    )


def adapter_table(config: ModelConfig, adapter: str) -> dict[str, Target]:
    """Returns name in a PEFT folder's file -> our name and shape, for one adapter (facts sheet 6.2)."""
    own = {name: shape for name, shape in parameter_shapes(config).items() if adapter_of(name) == adapter}
    return _bijective(
        (
            name.replace("language.", "base_model.model.", 1).replace(f".{adapter}.weight", ".weight"),
            Target(name, shape),
        )
        for name, shape in own.items()
    )


def _bijective(rows: Iterable[tuple[str, Target]]) -> dict[str, Target]:
    table: dict[str, Target] = {}
    for name, target in rows:
        if name in table:
            raise CheckpointError(f"{target.name} and {table[name].name} would both be stored as {name}")
        table[name] = target
    return table


def match(stored: Mapping[str, StoredTensor], table: Mapping[str, Target], where: str) -> dict[str, StoredTensor]:
    """Matches the tensors of files with a key table and returns them by our names.

    Args:
        stored: tensors by the names in the files.
        table: the key table of the configuration.
        where: what the messages call the files.

    Raises:
        CheckpointError: a tensor is unknown, missing or misshapen; the message lists the first few and the count.
    """
    problems = []
    if unknown := stored.keys() - table.keys():
        problems.append(f"unknown: {list_some(unknown)}")
    if missing := table.keys() - stored.keys():
        problems.append(f"missing: {list_some(missing)}")
    if misshapen := [
        f"{name} {list(stored[name].shape)} instead of {list(target.shape)}"
        for name, target in table.items()
        if name in stored and stored[name].shape != target.shape
    ]:
        problems.append(f"misshapen: {list_some(misshapen)}")
    if mistyped := [
        f"{name} {stored[name].dtype} instead of {target.dtype or 'numbers with a fraction'}"
        for name, target in table.items()
        if name in stored and not _has_type(stored[name], target)
    ]:
        problems.append(f"of another type: {list_some(mistyped)}")
    if problems:
        raise CheckpointError(
            f"the tensors of {where} are not those that its configuration describes; {'; '.join(problems)}. "
            "Either config.json belongs to another model or the weights are incomplete"
        )
    return {target.name: stored[name] for name, target in table.items()}


def _has_type(tensor: StoredTensor, target: Target) -> bool:
    return tensor.dtype.is_floating_point if target.dtype is None else tensor.dtype == target.dtype
