"""The encoders of pictures and sounds at full size in bf16 against transformers' own classes, with the same weights.

Both sides run in one process and take turns; medians are printed, their ratio, and the time that the products take at
the rate of a large product on this machine, below which no bf16 encoder can come.

Where a picture needs no mask, the default attention of transformers 5.23 (SDPA) takes its vision tower for causal:
patches see those before them, and the output differs. Its plain attention computes what the release does.

    python benchmarks/encoders.py --encoder vision --rounds 3
    python benchmarks/encoders.py --encoder speech --rounds 5
    python benchmarks/encoders.py --encoder vision --crops 2 --rounds 2 --processor-time  # where other work runs
    python benchmarks/encoders.py --encoder speech --rounds 5 --eight-bits  # our side with linears of 8 bits
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from timing import alternate
from torch.nn import functional
from transformers import Phi4MultimodalAudioConfig, Phi4MultimodalVisionConfig, PreTrainedModel
from transformers.models.phi4_multimodal.modeling_phi4_multimodal import (
    Phi4MultimodalAudioModel,
    Phi4MultimodalVisionModel,
)

from phi4.checkpoint.presets import load_preset
from phi4.checkpoint.rounding import round_weight
from phi4.config import SpeechConfig, VisionConfig
from phi4.kernels.quantised_projection import padded
from phi4.model.quantised import QuantisedWeight
from phi4.model.speech import ConformerEncoder
from phi4.model.vision import SiglipEncoder

CROP_PX = 448
# A sound of 40 s, the longest that passes in one piece.
FRAMES, MELS = 4000, 80
# Rows, inputs and outputs of the product that stands for what the machine can do.
LARGE = 3072

Side = Callable[[], torch.Tensor]


def randomise(model: torch.nn.Module) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point():
                scale = tensor[0].numel() ** -0.5 if tensor.dim() > 1 else 0.1
                centre = 1.0 if ("norm" in name and name.endswith("weight")) or "invstd" in name else 0.0
                tensor.copy_(centre + scale * torch.randn(tensor.shape, generator=generator))
    return model.to(torch.bfloat16).eval()


def copy_weights(theirs: torch.nn.Module, ours: torch.nn.Module, renamed: dict[str, str]) -> None:
    """Copies by name, theirs turned into ours; what only theirs has stays behind."""
    state = {}
    for name, tensor in theirs.state_dict().items():
        for old, new in renamed.items():
            name = name.replace(old, new)
        state[name] = tensor
    missing = [name for name in ours.state_dict() if name not in state]
    assert not missing, missing
    ours.load_state_dict({name: state[name] for name in ours.state_dict()})


def with_eight_bits(ours: torch.nn.Module, config: VisionConfig | SpeechConfig) -> torch.nn.Module:
    """The same encoder with linears of 8 bits, as `phi4 quantize --encoders 8bit` writes it."""
    with torch.device("meta"):
        quantised = type(ours)(replace(config, linear_bits=8))
    state, given = {}, ours.state_dict()
    for name, module in quantised.named_modules():
        if isinstance(module, QuantisedWeight):
            weight = given.pop(name).flatten(1)
            filled = functional.pad(weight, (0, padded(weight.shape[1]) - weight.shape[1]))
            packed = round_weight(filled, 8)
            state |= {f"{name}.codes": packed.codes, f"{name}.scales": packed.scales}
    quantised.load_state_dict({**given, **state}, assign=True)
    return quantised.eval().requires_grad_(False)


def with_each_attention(model: PreTrainedModel, encode: Side) -> dict[str, Side]:
    """Transformers' side with its default attention and with the plain one."""

    def use(attention: str) -> torch.Tensor:
        model.set_attn_implementation(attention)
        return encode()

    return {"sdpa": lambda: use("sdpa"), "eager": lambda: use("eager")}


def vision_sides(config: VisionConfig, num_crops: int, eight_bits: bool) -> tuple[dict[str, Side], float]:
    """Both sides up to the features that the language model takes, and the operations of their products."""
    theirs = randomise(
        Phi4MultimodalVisionModel(Phi4MultimodalVisionConfig(num_hidden_layers=config.num_hidden_layers))
    )
    ours = SiglipEncoder(config).to(torch.bfloat16).eval()
    copy_weights(theirs, ours, {"embeddings.": "", "encoder.layers": "layers"})
    ours = with_eight_bits(ours, config) if eight_bits else ours
    crops = torch.randn(num_crops, 3, CROP_PX, CROP_PX, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    mask = torch.ones(num_crops, *[CROP_PX // config.patch_size] * 2, dtype=torch.bool)
    patches, width = mask[0].numel(), config.hidden_size
    layer = 4 * width**2 + 2 * width * config.intermediate_size + 2 * patches * width
    operations = 2 * num_crops * patches * (config.num_feature_layers * layer + 3 * config.patch_size**2 * width)

    def encode() -> torch.Tensor:
        return theirs(crops, patch_attention_mask=mask, output_hidden_states=True).hidden_states[-2]

    return {"phi4": lambda: ours(crops, mask), **with_each_attention(theirs, encode)}, operations


def speech_sides(config: SpeechConfig, eight_bits: bool) -> tuple[dict[str, Side], float]:
    """Both sides, and the operations of their products."""
    sizes = {"num_blocks": config.num_blocks, "bias_max_distance": config.bias_max_distance}
    theirs = randomise(Phi4MultimodalAudioModel(Phi4MultimodalAudioConfig(**sizes)))
    ours = ConformerEncoder(config).to(torch.bfloat16).eval()
    names = {
        "encoder_embedding.": "",
        "embed.": "subsampling.",
        "relative_attention_bias_layer.bias_values": "relative_attention_bias",
        "encoders.": "blocks.",
        "o_proj": "out_proj",
        "gate_up_proj": "value_gate_proj",
        "glu.ext_pw_conv_1d": "glu.pointwise",
        "dw_sep_conv_1d.dw_conv": "depthwise",
        "dw_sep_conv_1d.pw_conv": "pointwise",
        "conv.ext_pw_conv_1d": "conv.output",
    }
    copy_weights(theirs, ours, names)
    ours = with_eight_bits(ours, config) if eight_bits else ours
    frames = torch.randn(FRAMES, MELS, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    tokens, width, channels = FRAMES // config.time_reduction, config.hidden_size, config.conv_channels
    block = 6 * width * config.intermediate_size + 8 * width**2 + 2 * tokens * width
    # The pointwise convolutions of the front end, at a quarter and an eighth of the frames and mels.
    front = sum((FRAMES // r) * (MELS // r) * channels**2 for r in (4, 8)) + tokens * width * channels * (MELS // 8)
    operations = 2 * (config.num_blocks * tokens * block + front)
    return {
        "phi4": lambda: ours(frames),
        **with_each_attention(theirs, lambda: theirs(frames[None], None)[0]),
    }, operations


def multiply_large() -> torch.Tensor:
    matrix = torch.ones(LARGE, LARGE, dtype=torch.bfloat16)
    return functional.linear(matrix, matrix)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", choices=("vision", "speech"), required=True)
    parser.add_argument("--layers", type=int, help="fewer than the release has, for a quick look")
    parser.add_argument("--crops", type=int, default=7, help="7: six tiles and the global view of 1344 x 896")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processor-time", action="store_true", help="one thread, by the time that it runs")
    parser.add_argument("--eight-bits", action="store_true", help="our side with linears of 8 bits")
    arguments = parser.parse_args()
    clock = time.perf_counter
    if arguments.processor_time:
        torch.set_num_threads(1)
        clock = time.process_time
    config = load_preset("multimodal").config
    with torch.inference_mode():
        if arguments.encoder == "vision":
            vision = replace(config.vision, num_hidden_layers=arguments.layers or config.vision.num_hidden_layers)
            sides, operations = vision_sides(vision, arguments.crops, arguments.eight_bits)
        else:
            speech = replace(config.speech, num_blocks=arguments.layers or config.speech.num_blocks)
            sides, operations = speech_sides(speech, arguments.eight_bits)
        found = {name: side().float() for name, side in sides.items()}
        seconds = alternate({**sides, "product": multiply_large}, arguments.rounds, clock)
    rate = 2 * LARGE**3 / seconds["product"]
    floor = operations / rate
    print(
        f"{arguments.encoder}, torch {torch.__version__}, {torch.get_num_threads()} threads: "
        f"phi4 {seconds['phi4']:.2f} s; {operations / 1e12:.2f} TFLOP at {rate / 1e9:.0f} GFLOP/s take {floor:.2f} s"
    )
    for name in ("sdpa", "eager"):
        difference = float((found[name] - found["phi4"]).norm() / found["phi4"].norm())
        print(
            f"transformers, {name} attention: {seconds[name]:.2f} s, ratio {seconds[name] / seconds['phi4']:.2f} "
            f"of at most {seconds[name] / floor:.2f}; outputs differ by {difference:.1%}"
        )


if __name__ == "__main__":
    main()
