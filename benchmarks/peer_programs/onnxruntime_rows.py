"""ONNX Runtime GenAI on the CPU, for peers.py; the weights are a directory of its model builder."""

import time

import numpy as np
import onnxruntime_genai
from measure import Prompts, read_arguments, report


def main() -> None:
    weights, sizes = read_arguments()
    model = onnxruntime_genai.Model(weights)

    def run(prompts: Prompts, steps: int) -> tuple[float, float]:
        length = len(prompts[0]) + steps + 1
        settings = onnxruntime_genai.GeneratorParams(model)
        settings.set_search_options(do_sample=False, batch_size=len(prompts), max_length=length, min_length=length)
        generator = onnxruntime_genai.Generator(model, settings)
        generator.append_tokens(np.array(prompts, dtype=np.int32))
        times = []
        for _ in range(steps + 1):
            generator.generate_next_token()
            times.append(time.perf_counter())
        return times[0], times[-1]

    report(onnxruntime_genai.__version__, sizes, run)


if __name__ == "__main__":
    main()
