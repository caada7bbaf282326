"""How fast `phi4 curate` is, and how much memory it takes, beside plain datatrove with the same steps in one run.

    PYTHON -m pip install orjson
    PYTHON -m benchmarks.curation_throughput FOLDER [--size-mb 1000] [--workers 2] [--rounds 3]

FOLDER gets the raw text once, and the output of the run in progress. Documents are 4 to 12 paragraphs drawn from the
Debian handbook, FOLDOC and WordNet's glosses, eight of which make a paragraph, with one word in ten replaced by another
word of the same paragraph; of 20 documents one is an earlier one again, one an earlier one with one word in fifty
replaced, and one is from the handbook's translations. There are fewer different words in that than in as much of the
web. All draws have fixed seeds. Files have 30 MB, so that both programs read one in each task.

Both programs repair Unicode, tell the language with the same model (datatrove's own step would download one), apply
Gopher's rules, remove exact and near duplicates, and mask addresses. datatrove reads and writes uncompressed JSON
lines. Each run is a process of its own; memory is that of all its processes (PSS), twice a second. A step's MB/s take
every document for an average one. datatrove counts in `stage 3` of exact duplicates what the blocks behind it take.
"""

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import multiprocess
import psutil
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup.exact_dedup import ExactDedupFilter, ExactDedupSignature, ExactFindDedups
from datatrove.pipeline.dedup.minhash import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.formatters import FTFYFormatter, PIIFormatter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter

import phi4
from benchmarks import curation_recipe
from benchmarks.curation import HANDBOOK, changed, entries, foreign, glosses, paragraphs
from phi4.data.curate import text
from phi4.data.curate.curation import NearDuplicates
from phi4.data.curate.duplicates import exact_config, minhash_config
from phi4.data.curate.executors import PRELOADED
from phi4.data.curate.run import curate
from recipes.nano.packages import fetch

FILE_BYTES = 30_000_000
# Earlier documents that may come again.
NUM_REMEMBERED = 2000
SAMPLE_S = 0.5
PROGRAMS = ("phi4", "datatrove")


def documents(draw: random.Random) -> Iterator[str]:
    """Texts without end."""
    handbook = fetch(HANDBOOK) / "usr/share/doc/debian-handbook/html"
    some = glosses()
    eights = [" ".join(some[start : start + 8]) for start in range(0, len(some), 8)]
    pool, other = [*paragraphs(handbook / "en-US"), *entries(), *eights], foreign()
    earlier: list[str] = []
    while True:
        kind = draw.randrange(20) if earlier else 3
        if kind == 0:
            yield draw.choice(earlier)
        elif kind == 1:
            yield changed(draw.choice(earlier), 50, draw)
        else:
            drawn = draw.choices(other if kind == 2 else pool, k=draw.randint(4, 12))
            earlier.append("\n\n".join(changed(one, 10, draw) for one in drawn))
            yield earlier[-1]
            if len(earlier) > NUM_REMEMBERED:
                del earlier[draw.randrange(NUM_REMEMBERED)]


def make_raw(folder: Path, size: int) -> None:
    """Writes JSON lines of so many bytes, unless they are there."""
    told = folder / "complete"
    if told.exists() and told.read_text() == str(size):
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    texts = documents(random.Random(0))
    number = 0
    while size > 0:
        written = 0
        with (folder / f"{number:04}.jsonl").open("w", encoding="utf-8") as file:
            while written < min(FILE_BYTES, size):
                written += file.write(json.dumps({"text": next(texts)}, ensure_ascii=False) + "\n")
        size -= written
        number += 1
    told.write_text(str(size))


class Language(BaseFilter):  # type: ignore[misc]
    """Our check of the language as a filter of datatrove; the model is loaded where it is used."""

    name = "language"

    def __init__(self) -> None:
        super().__init__()
        self.reason = None

    def filter(self, doc: object) -> bool:
        """Whether a document is in English."""
        self.reason = self.reason or text.language("en", curation_recipe.MIN_CONFIDENCE).reason
        return self.reason(doc) is None


def run_datatrove(raw: Path, out: Path, workers: int) -> dict[str, float]:
    """Runs the steps as datatrove's examples do, and returns the seconds of each stage."""
    tasks = len(list(raw.glob("*.jsonl")))
    near = NearDuplicates()
    exact, minhash = exact_config(), minhash_config(near)
    folder = {name: str(out / name) for name in ("a", "b", "signatures", "exact", "hashes", "pairs", "near", "final")}

    def writer(name: str) -> JsonlWriter:
        return JsonlWriter(folder[name], compression=None)

    stages: dict[str, list[tuple[list[object], int]]] = {
        "to exact duplicates": [
            (
                [
                    JsonlReader(str(raw), glob_pattern="*.jsonl"),
                    FTFYFormatter(),
                    Language(),
                    GopherRepetitionFilter(),
                    GopherQualityFilter(**curation_recipe.GOPHER_RULES),
                    writer("a"),
                    ExactDedupSignature(folder["signatures"], exact),
                ],
                tasks,
            ),
            ([ExactFindDedups(folder["signatures"], folder["exact"], exact)], 1),
        ],
        "to near duplicates": [
            (
                [
                    JsonlReader(folder["a"]),
                    ExactDedupFilter(folder["exact"], exact),
                    writer("b"),
                    MinhashDedupSignature(folder["hashes"], minhash, language=near.language),
                ],
                tasks,
            ),
            ([MinhashDedupBuckets(folder["hashes"], folder["pairs"], config=minhash)], near.buckets),
            ([MinhashDedupCluster(folder["pairs"], folder["near"], config=minhash)], 1),
        ],
        "addresses": [
            ([JsonlReader(folder["b"]), MinhashDedupFilter(folder["near"]), PIIFormatter(), writer("final")], tasks)
        ],
    }
    multiprocess.set_forkserver_preload(PRELOADED)
    seconds = {}
    for stage, pipelines in stages.items():
        started = time.perf_counter()
        for number, (pipeline, num_tasks) in enumerate(pipelines):
            logs = str(out / "logs" / f"{len(seconds)}-{number}")
            LocalPipelineExecutor(pipeline, num_tasks, min(workers, num_tasks), logging_dir=logs).run()
        seconds[stage] = time.perf_counter() - started
    seconds["shards and report"] = 0.0
    return seconds


def run_phi4(raw: Path, out: Path, workers: int) -> dict[str, float]:
    """Curates, and returns the seconds of each stage."""
    marks: list[float] = []
    recipe = f"{curation_recipe.__file__}:throughput"
    curate(recipe, raw, out, workers, "local", phi4.__version__, lambda _: marks.append(time.perf_counter()))
    marks.append(time.perf_counter())
    names = ("to exact duplicates", "to near duplicates", "addresses", "shards and report")
    return {name: end - start for name, (start, end) in zip(names, pairwise(marks), strict=True)}


def step_seconds(program: str, out: Path) -> dict[str, tuple[float, int]]:
    """Seconds of all workers in each step, as the program itself counts them, and the documents that came."""
    if program == "phi4":
        lines = (out / "report.md").read_text().split("## Why")[0].splitlines()
        rows = [
            [cell.strip().replace(",", "") for cell in line.strip("|").split("|")] for line in lines if "| " in line
        ]
        return {row[0]: (float(row[7]), int(row[1])) for row in rows[2:]}
    found = {}
    for path in sorted(out.glob("logs/*/stats.json")):
        for block in json.loads(path.read_text()):
            total = block["stats"].get("total", 0)
            count = total["total"] if isinstance(total, dict) else total
            found[f"{path.parent.name} {block['name']}"] = (float(block["time_stats"]["total"]), int(count))
    return found


def measured(program: str, folder: Path, workers: int) -> tuple[dict[str, float], float]:
    """Runs a program in a process of its own: seconds of each stage, and the most memory of all processes in MB."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    command = [sys.executable, "-m", "benchmarks.curation_throughput", str(folder), "--workers", str(workers)]
    with (folder / f"{program}.log").open("w") as log:
        process = subprocess.Popen([*command, "--only", program], stdout=subprocess.PIPE, stderr=log, text=True)
        peak = 0
        while process.poll() is None:
            peak = max(peak, total_pss(process.pid))
            time.sleep(SAMPLE_S)
        assert process.stdout is not None
        with process.stdout as printed:
            answer = printed.read()
    if process.returncode:
        raise SystemExit(f"{program} failed; see {folder / program}.log")
    seconds: dict[str, float] = json.loads(answer.splitlines()[-1])
    return seconds, peak / 1e6


def total_pss(pid: int) -> int:
    """Memory of a process and all that it started, in bytes; pages that several share count once."""
    total = 0
    try:
        for process in (root := psutil.Process(pid), *root.children(recursive=True)):
            total += process.memory_full_info().pss
    except psutil.Error:
        pass
    return total


def report(
    found: dict[str, list[tuple[dict[str, float], float]]],
    steps: dict[str, dict[str, tuple[float, int]]],
    count: int,
    size: float,
) -> None:
    """Prints tables in Markdown: medians over the rounds, and the steps of the last one."""
    stages = list(found["phi4"][0][0])
    print("\n| stage, s (documents/s, MB/s of raw text) | phi4 | datatrove |\n|---|---|---|")
    for stage in [*stages, "together"]:
        cells = []
        for program in PROGRAMS:
            rounds = [sum(run.values()) if stage == "together" else run[stage] for run, _ in found[program]]
            middle = statistics.median(rounds)
            cells.append(f"{middle:.1f} ({count / middle:,.0f}, {size / middle:.2f})" if middle else "")
        print(f"| {stage} | {' | '.join(cells)} |")
    peaks = [statistics.median(peak for _, peak in found[program]) for program in PROGRAMS]
    print(f"| peak memory, MB | {peaks[0]:,.0f} | {peaks[1]:,.0f} |")
    for program in PROGRAMS:
        rounds_s = ", ".join(f"{sum(run.values()):.1f}" for run, _ in found[program])
        print(f"\n{program}, each round: {rounds_s} s. Its own account of the last, all workers together:\n")
        print("| step | documents | s | documents/s | MB/s |\n|---|---|---|---|---|")
        for name, (seconds, came) in steps[program].items():
            rates = f"{came / seconds:,.0f} | {came * size / count / seconds:,.2f}" if seconds else " | "
            print(f"| {name} | {came:,} | {seconds:.2f} | {rates} |")


def main() -> None:
    """Makes the raw text, runs both in turns, prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size-mb", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=PROGRAMS)
    asked = parser.parse_args()
    folder: Path = asked.folder.resolve()
    raw, out = folder / "raw", folder / "out"
    if asked.only:
        run = run_phi4 if asked.only == "phi4" else run_datatrove
        print(json.dumps(run(raw, out, asked.workers)))
        return
    make_raw(raw, asked.size_mb * 1_000_000)
    count = sum(path.read_bytes().count(b"\n") for path in raw.glob("*.jsonl"))
    found: dict[str, list[tuple[dict[str, float], float]]] = {program: [] for program in PROGRAMS}
    steps = {}
    for number in range(asked.rounds):
        order: Sequence[str] = PROGRAMS if number % 2 == 0 else PROGRAMS[::-1]
        for program in order:
            found[program].append(measured(program, folder, asked.workers))
            steps[program] = step_seconds(program, out)
            print(f"round {number + 1}, {program}: {sum(found[program][-1][0].values()):.1f} s", file=sys.stderr)
    shutil.rmtree(out)
    size = sum(path.stat().st_size for path in raw.glob("*.jsonl")) / 1e6
    print(f"{count:,} documents, {size:,.0f} MB, {asked.workers} workers, {asked.rounds} rounds")
    report(found, steps, count, size)


if __name__ == "__main__":
    main()
