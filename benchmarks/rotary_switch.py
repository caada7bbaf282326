"""The largest gap between two tokens where a row outgrows the short rotary table, prepared ahead of time and not.

Random weights of nano's sizes with LongRoPE, one row that crosses 4096 tokens beside others that are answered.

python benchmarks/rotary_switch.py --neighbours 4
"""

import argparse
import statistics
from dataclasses import replace
from itertools import pairwise

import torch

from phi4.checkpoint.presets import load_preset
from phi4.checkpoint.usual_dtype import multiplies_bf16
from phi4.config import LongRopeConfig
from phi4.engine.engine import Engine
from phi4.engine.limits import SchedulerLimits
from phi4.engine.request import Request
from phi4.engine.sampling import Sampling
from phi4.inputs import ModelInputs
from phi4.model.decoder import Phi4Mini


def build_model(original_context: int) -> Phi4Mini:
    """nano's sizes, the release's contexts, and factors that differ."""
    config = load_preset("nano").config.decoder
    half = config.rotary_dim // 2
    config = replace(
        config,
        max_position_embeddings=32 * original_context,
        original_max_position_embeddings=original_context,
        rope_scaling=LongRopeConfig((1.0,) * half, tuple(1.0 + place for place in range(half))),
    )
    model = Phi4Mini(config).to(torch.bfloat16 if multiplies_bf16(torch.device("cpu")) else torch.float32).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.02, generator=generator)
    return model


def gaps(model: Phi4Mini, long_ahead: float, neighbours: int) -> tuple[float, float]:
    """Median and largest gap in seconds between two tokens of the row that crosses, from preparation on."""
    original = model.config.original_max_position_embeddings
    engine = Engine(model, (), SchedulerLimits(long_ahead=long_ahead, reuse_prefixes=False))
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(100, 20_000, (neighbours + 1, original), generator=generator).tolist()
    num_new = original // 6
    crossing = Request(ModelInputs(tuple(ids[0][: original - original // 7])), Sampling(max_tokens=num_new))
    others = [Request(ModelInputs(tuple(row[:64])), Sampling(max_tokens=2 * num_new)) for row in ids[1:]]
    seconds = [token.seconds for index, token in engine.generate([crossing, *others]) if index == 0]
    found = [later - earlier for earlier, later in pairwise(seconds)]
    return statistics.median(found), max(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neighbours", type=int, default=4)
    parser.add_argument("--original-context", type=int, default=4096)
    arguments = parser.parse_args()
    model = build_model(arguments.original_context)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {arguments.neighbours} other rows")
    for name, long_ahead in (("at the switch", 0.0), ("ahead of time", 1 / 7)):
        median, largest = gaps(model, long_ahead, arguments.neighbours)
        print(f"{name}: gap between tokens {1000 * median:.0f} ms median, {1000 * largest:.0f} ms at most")


if __name__ == "__main__":
    main()
