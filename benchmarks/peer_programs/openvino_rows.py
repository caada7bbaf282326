"""OpenVINO GenAI's continuous batching on the CPU, for peers.py; the weights are a directory of optimum-cli."""

import os
import time

import numpy as np
import openvino
import openvino_genai
from measure import Prompts, read_arguments, report


def main() -> None:
    weights, sizes = read_arguments()
    schedule = openvino_genai.SchedulerConfig()
    schedule.cache_size = 2  # GB
    schedule.max_num_seqs = sizes.rows
    schedule.max_num_batched_tokens = max(1024, sizes.rows * sizes.decode_prompt_tokens)  # all rows begin in one step
    schedule.enable_prefix_caching = False
    properties = {"INFERENCE_NUM_THREADS": os.cpu_count()}
    pipeline = openvino_genai.ContinuousBatchingPipeline(weights, schedule, "CPU", properties)

    def run(prompts: Prompts, steps: int) -> tuple[float, float]:
        settings = openvino_genai.GenerationConfig(max_new_tokens=steps + 1, ignore_eos=True, do_sample=False)
        handles = [
            pipeline.add_request(row, openvino.Tensor(np.array([ids], dtype=np.int64)), settings)
            for row, ids in enumerate(prompts)
        ]
        waiting, first = handles, 0.0
        while pipeline.has_non_finished_requests():
            pipeline.step()
            now = time.perf_counter()
            begun = [handle for handle in waiting if handle.can_read()]
            if begun:
                first = now
                waiting = [handle for handle in waiting if handle not in begun]
        return first, now

    report(openvino_genai.__version__, sizes, run)


if __name__ == "__main__":
    main()
