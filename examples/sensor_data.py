"""Four seconds of an accelerometer in somebody's pocket, by simple physics, and the words for them."""

from collections.abc import Iterator
from itertools import permutations

import numpy as np

from phi4 import Message, Signal
from phi4.data.record import Record

QUESTION = "What happened?"
ACTIVITIES = ("resting", "walking", "running", "shaking", "falling")
DESCRIPTIONS = tuple(f"{first}, then {second}" for first, second in permutations(ACTIVITIES, 2))


def make_records(number: int, seed: int) -> Iterator[Record]:
    """Conversations to learn from: a trace, the question, and the description."""
    for index, (words, trace) in enumerate(make_traces(number, seed)):
        messages = (Message("user", (Signal("sensor", trace), QUESTION)), Message("assistant", words))
        yield Record(f"trace-{index}", messages, "sensor_data.py", "CC0-1.0", split="train", task="describe")


def make_traces(number: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Descriptions in turn, each with a CSV file of 100 lines x,y,z in g, 25 a second."""
    rng = np.random.default_rng(seed)
    for index in range(number):
        words = DESCRIPTIONS[index % len(DESCRIPTIONS)]
        change, (first, second) = int(rng.integers(40, 61)), words.split(", then ")
        felt = np.concatenate([feel(first, change, rng), feel(second, 100 - change, rng)])
        axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]  # The sensor may lie in any direction.
        samples = felt @ axes + rng.normal(0.0, 0.04, felt.shape)
        yield words, "\n".join(f"{x:.3f},{y:.3f},{z:.3f}" for x, y, z in samples).encode()


def feel(activity: str, num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """What acts on the sensor in g: sideways, up, forward; gravity is felt as 1 g upwards."""
    time_s, (sideways, up, forward) = np.arange(num_samples)[:, None] / 25, np.eye(3)
    if activity == "falling":  # Weightless, then an impact that dies away, then at rest on one side.
        impact_s = rng.uniform(0.4, 0.6)
        landed = sideways + 4 * np.exp((impact_s - time_s).clip(max=0) / 0.06) * up
        return np.where(time_s < impact_s, 0.0, landed)
    if activity == "shaking":
        swing = np.sin(2 * np.pi * (rng.uniform(4.5, 6.5) * time_s + rng.random()))
        direction = rng.normal(size=3)
        return up + rng.uniform(1.2, 2.0) * swing * direction / np.linalg.norm(direction)
    size_g, steps_hz = {"resting": (0.0, 0.0), "walking": (0.3, 1.6), "running": (1.0, 2.5)}[activity]
    phase = 2 * np.pi * ((steps_hz + rng.uniform(0.0, 0.5)) * time_s + rng.random())
    return up + size_g * (np.sin(phase) * up + np.cos(phase) / 2 * forward + np.sin(phase / 2) / 4 * sideways)


def draw(trace: bytes) -> str:
    """The strength as a line of blocks, 0 to 3 g, two samples each."""
    strength_g = np.linalg.norm(np.loadtxt(trace.decode().splitlines(), delimiter=","), axis=1)
    return "".join("▁▂▃▄▅▆▇█"[int(min(value, 2.9) / 3 * 8)] for value in strength_g.reshape(-1, 2).max(axis=1))


if __name__ == "__main__":
    for description, trace in make_traces(len(DESCRIPTIONS), seed=0):
        print(draw(trace), description)
