"""Phi-4-Multimodal at full size in bf16: load, then one question with a picture and a sound; seconds and peak memory.

phi4 init multimodal /tmp/multimodal
python benchmarks/multimodal_full_size.py /tmp/multimodal
"""

import argparse
import time
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from phi4 import Assistant, Sampling
from phi4.memory import peak_resident_bytes


def peak_gib() -> float:
    return peak_resident_bytes() / 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args().directory

    random = np.random.default_rng(0)
    picture = PIL.Image.fromarray(random.integers(0, 255, (768, 1024, 3), dtype=np.uint8))
    sound = (random.standard_normal(16000 * 10).astype(np.float32) * 0.1, 16000)

    started = time.perf_counter()
    assistant = Assistant.load(directory, device="cpu")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"load {time.perf_counter() - started:.1f} s, peak memory {peak_gib():.2f} GiB")
    answer = assistant.ask("What is this?", images=[picture], sounds=[sound], sampling=Sampling(max_tokens=8))
    print(
        f"1024 x 768 picture and 10 s of sound: {len(answer.prompt_token_ids)} prompt tokens {dict(answer.media)}, "
        f"{len(answer.token_ids)} answer tokens, adapter {answer.adapter}: {answer.seconds:.1f} s, "
        f"peak memory {peak_gib():.2f} GiB"
    )


if __name__ == "__main__":
    main()
