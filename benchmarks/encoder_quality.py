"""How far encoders of 8 bits move the features that the language model takes, on held-out records of nano's data.

phi4 convert nano ./joined --pack VISION --pack SPEECH
phi4 quantize ./joined ./joined-8bit --scheme 8bit --encoders 8bit
phi4 convert ./joined-8bit ./packs-8bit --to packs
python benchmarks/encoder_quality.py DATA VISION SPEECH --against ./packs-8bit/{vision,speech}.safetensors
"""

import argparse
import statistics
from pathlib import Path

import torch
from torch.nn import functional

from phi4 import Assistant
from phi4.inputs import ModelInputs
from phi4.score import prepare_question, read_held_out


def features(assistant: Assistant, inputs: ModelInputs) -> list[torch.Tensor]:
    """Rows of each medium, in float32."""
    model = assistant.loaded.model
    adapter = model.adapter_for(frozenset(medium.modality for medium in inputs.media))
    return [model.encode(medium, adapter).float() for medium in inputs.media]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="what recipes.nano.build wrote")
    parser.add_argument("packs", type=Path, nargs="+")
    parser.add_argument("--against", type=Path, nargs="+", required=True)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--limit", type=int, default=100, help="records of a task")
    arguments = parser.parse_args()
    before, after = (
        Assistant.load(arguments.model, packs=packs, device="cpu") for packs in (arguments.packs, arguments.against)
    )
    for held_out in read_held_out(arguments.data, arguments.limit):
        cosines, errors = [], []
        for record in held_out.records:
            inputs = prepare_question(record, before.processor)
            with torch.inference_mode():
                pairs = list(zip(features(before, inputs), features(after, inputs), strict=True))
            cosines += [float(functional.cosine_similarity(*pair, dim=-1).mean()) for pair in pairs]
            errors += [float((first - second).norm() / first.norm()) for first, second in pairs]
        if cosines:
            cosine, error = statistics.mean(cosines), statistics.mean(errors)
            print(
                f"{held_out.dataset}, {held_out.task}: {len(cosines)} media, mean cosine {cosine:.5f}, "
                f"mean relative difference {error:.2%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
