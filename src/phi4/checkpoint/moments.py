"""What the linears of a decoder are given while it reads a text, layer after layer."""

from collections.abc import Iterator, Sequence

import torch

from phi4.model.decoder import Phi4Mini
from phi4.model.lora import AdaptedLinear
from phi4.model.step import Segment, rotary_for

# Windows that pass a layer together have about so many tokens: of `mini`, 2,048 take 70 MB in the MLP.
PASS_TOKENS = 2048


def layer_moments(language: Phi4Mini, windows: Sequence[Sequence[int]]) -> Iterator[dict[str, torch.Tensor]]:
    """Yields, for each layer in turn, the second moments of the inputs of its linears over all tokens.

    Only one layer's moments and the hidden states of the text are in memory: 268 MB for the MLP of `mini`.

    Args:
        language: the model, not quantised.
        windows: token ids of pieces of text, each read by itself.

    Returns:
        fp32 [inputs, inputs] by the name of each linear within its layer, such as "mlp.down_proj".
    """
    with torch.inference_mode():
        passes = []
        for some in split_windows(windows):
            segments = [Segment(len(ids), rotary=rotary_for(language.config, len(ids))) for ids in some]
            token_ids = torch.tensor([token for ids in some for token in ids], device=language.device)
            passes.append((language.embed(token_ids), language.step(segments)))
    for layer in language.model.layers:
        moments: dict[str, torch.Tensor] = {}
        hooks = [
            module.register_forward_pre_hook(
                lambda _, inputs, name=name, moments=moments: _add_moment(moments, name, inputs[0])
            )
            for name, module in layer.named_modules()
            if isinstance(module, AdaptedLinear)
        ]
        # Not around the yield: the mode would be that of whoever asks for moments, too.
        with torch.inference_mode():
            passes = [(layer(hidden, step), step) for hidden, step in passes]
        for hook in hooks:
            hook.remove()
        yield moments


def split_windows(windows: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    """Groups windows, in their order, into passes of at least `PASS_TOKENS`, but for the last."""
    some: list[Sequence[int]] = []
    for window in windows:
        some.append(window)
        if sum(map(len, some)) >= PASS_TOKENS:
            yield some
            some = []
    if some:
        yield some


def _add_moment(moments: dict[str, torch.Tensor], name: str, inputs: torch.Tensor) -> None:
    wide = inputs.float()
    own = wide.T @ wide
    moments[name] = moments[name] + own if name in moments else own
