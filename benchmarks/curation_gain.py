"""Two small language models from scratch, on a noisy mixture and on the same mixture curated, by held-out clean text.

    PYTHON -m benchmarks.curation_gain FOLDER [--steps 416]

Both have the same architecture (Phi-4-Mini's, 3.2 M parameters), first weights, number of steps and rows, rate, and
tokenizer, which is learnt from the mixture; for each of three seeds. The clean text is FOLDOC's entries and WordNet's
glosses; `mixture` says what is planted among it. Held-out texts are clean, and none of their runs of 13 words is in the
mixture.

FOLDER gets raw files, curated ones, a run for each arm and seed, `table.md` and `curves.svg`. A run that was killed
goes on with the same command.
"""

import argparse
import json
import os
import random
import re
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import tokenizers
import torch

matplotlib.use("svg")

from matplotlib import pyplot

import phi4
from benchmarks import curation_gain_recipe
from benchmarks.curation import HANDBOOK, entries, paragraphs, runs
from phi4.checkpoint.config_json import read_config
from phi4.checkpoint.directories import GENERATION_FILE, write_json
from phi4.checkpoint.initialise import random_tensor
from phi4.checkpoint.keymap import parameter_shapes
from phi4.checkpoint.layouts import write_checkpoint
from phi4.checkpoint.presets import load_preset
from phi4.checkpoint.shards import TensorSpec
from phi4.checkpoint.tokenizer_files import (
    BYTE_LEVEL_SPLIT,
    PHI4_TOKENS,
    AddedToken,
    phi4_tokenizer_config,
    save_tokenizer,
    tokenizer_json,
)
from phi4.data.curate.decontaminate import words_of
from phi4.data.curate.quality import Labelled, learn_quality
from phi4.data.curate.run import curate
from phi4.data.record import Record
from phi4.data.shards import ShardedRecords, write_shards
from phi4.files import new_directory
from phi4.processing.messages import Message
from phi4.train.run import MODEL_FOLDER, train_stage
from phi4.train.stage import Source, Stage, Text
from recipes.nano.packages import WORDNET, fetch

ARMS = ("raw", "curated")
SEEDS = (0, 1, 2)
# Share of the mixture's bytes. Web crawls are not like this, nor like anything else that one could plant: the gain is
# that of this mixture.
SHARES = {"clean": 0.40, "repeats": 0.15, "markup": 0.15, "foreign": 0.12, "garbled": 0.12, "tables": 0.06}
MIXTURE_BYTES = 9_000_000
HELD_OUT = 150
# Documents of the mixture that the classifier learns from, labelled as a person would who reads them.
LABELLED = 1000
GOOD = ("clean", "repeats")
NUM_PIECES = 4096
LANGUAGES = ("de-DE", "fr-FR", "es-ES", "it-IT", "ru-RU", "ja-JP", "pt-BR", "nl-NL", "sv-SE", "pl-PL", "id-ID", "cs-CZ")
LICENCES = {"clean": "GFDL-1.3 and WordNet-3.0", "foreign": HANDBOOK.licence, "markup": HANDBOOK.licence}


@dataclass(frozen=True)
class Document:
    """A text of the mixture, and what it is there as."""

    kind: str
    text: str


def stage(seed: int, steps: int) -> Stage:
    """The same for both arms: about 2,000 tokens a step."""
    return Stage(
        name="curation gain",
        trains=("language",),
        sources=(Source("text", 1, Text()),),
        steps=steps,
        rows_per_step=2,
        tokens_per_row=1024,
        learning_rate=3e-3,
        warmup_steps=steps // 10,
        weight_decay=0.1,
        valid_every=max(1, steps // 8),
        valid_records=HELD_OUT,
        save_every=50,
        seed=seed,
    )


# The mixture


def glossaries() -> list[str]:
    """Texts of twelve neighbouring words of WordNet each, with their glosses."""
    texts = []
    for name in ("data.noun", "data.verb", "data.adj", "data.adv"):
        lines = (fetch(WORDNET) / "usr/share/wordnet" / name).read_text(encoding="latin-1").splitlines()
        parts = [line.split(" | ") for line in lines if " | " in line]
        # In the fifth field, (p) and the like say where an adjective may stand.
        glosses = [f"{re.sub('[(].*', '', p[0].split()[4]).replace('_', ' ')}: {p[1].strip()}" for p in parts]
        texts += ["\n".join(glosses[start : start + 12]) for start in range(0, len(glosses), 12)]
    return texts


def clean_texts(draw: random.Random) -> tuple[list[str], list[str]]:
    """Clean texts in a random order, and those held out."""
    texts = sorted({*entries(), *glossaries()})
    draw.shuffle(texts)
    held_out = texts[:HELD_OUT]
    forbidden = {run for text in held_out for run in runs_of(text)}
    return [text for text in texts[HELD_OUT:] if forbidden.isdisjoint(runs_of(text))], held_out


def runs_of(text: str, length: int = 13) -> set[str]:
    """Runs of so many words."""
    words = words_of(text)
    return {" ".join(words[start : start + length]) for start in range(len(words) - length + 1)}


def foreign_texts() -> list[str]:
    """Paragraphs of the handbook's translations, unless they were left in English, several in a text."""
    folder = fetch(HANDBOOK) / "usr/share/doc/debian-handbook/html"
    english = {run for text in paragraphs(folder / "en-US") for run in runs(text)}
    texts = []
    for name in LANGUAGES:
        own = [text for text in paragraphs(folder / name) if len(runs(text) & english) < 0.2 * len(runs(text)) + 1]
        texts += ["\n".join(own[start : start + 3]) for start in range(0, len(own), 3)]
    return texts


def markup_texts() -> list[str]:
    """Pieces of the source of English web pages: navigation, tags, addresses, and some text between them."""
    pages = sorted((fetch(HANDBOOK) / "usr/share/doc/debian-handbook/html/en-US").glob("*.html"))
    sources = (page.read_text(encoding="utf-8") for page in pages)
    return [source[start : start + 1200] for source in sources for start in range(0, len(source), 1200)]


def garbled(text: str, draw: random.Random) -> str:
    """The words in another order, or a letter in eight replaced: what a broken extraction or recognition leaves."""
    if draw.random() < 0.5:
        words = text.split()
        draw.shuffle(words)
        return " ".join(words)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789|~;"
    return "".join(draw.choice(letters) if letter.isalpha() and draw.random() < 1 / 8 else letter for letter in text)


def table(draw: random.Random) -> str:
    """Forty rows of numbers under short names."""
    columns = draw.randint(3, 8)
    head = "\t".join(draw.choice(("id", "date", "lat", "lon", "min", "max", "mean", "n", "p")) for _ in range(columns))
    rows = ["\t".join(f"{draw.lognormvariate(3, 2):.{draw.randint(0, 3)}f}" for _ in range(columns)) for _ in range(40)]
    return "\n".join([head, *rows])


def endless(texts: Sequence[str], draw: random.Random) -> Iterator[str]:
    """The texts in a random order, again and again."""
    while True:
        yield from draw.sample(texts, len(texts))


def mixture(draw: random.Random, num_bytes: int) -> tuple[list[Document], list[str]]:
    """The documents of the mixture in a random order, and the texts held out."""
    clean, held_out = clean_texts(draw)
    fresh = iter(clean)
    # Of the texts that come again, each comes about 25 times.
    few = [next(fresh) for _ in range(round(num_bytes * SHARES["repeats"] / 25 / 600))]
    kinds: dict[str, Iterator[str]] = {
        "clean": fresh,
        "repeats": endless(few, draw),
        "markup": iter(draw.sample(markup := markup_texts(), len(markup))),
        "foreign": iter(draw.sample(foreign := foreign_texts(), len(foreign))),
        "garbled": (garbled(text, draw) for text in fresh),
        "tables": (table(draw) for _ in iter(int, 1)),
    }
    documents = []
    for kind, texts in kinds.items():
        room = num_bytes * SHARES[kind]
        for text in texts:
            documents.append(Document(kind, text))
            room -= len(text.encode())
            if room <= 0:
                break
        assert room <= 0, f"there is not enough text of the kind {kind}: {room:.0f} bytes are missing"
    draw.shuffle(documents)
    return documents, held_out


# What the runs begin with


def prepare(folder: Path, num_bytes: int) -> None:
    """Writes raw files, learns the classifier, curates, learns the tokenizer, and writes data and first models."""
    documents, held_out = mixture(random.Random(0), num_bytes)
    with new_directory(folder / "mixture") as partial:
        for number in range(4):
            lines = (
                json.dumps({"text": d.text, "source": d.kind, "licence": LICENCES.get(d.kind, "see clean")}) + "\n"
                for d in documents[number::4]
            )
            (partial / f"{number}.jsonl").write_text("".join(lines), encoding="utf-8")
    unique = list({document.text: document for document in documents}.values())
    labelled = [Labelled(document.text, document.kind in GOOD) for document in unique[:LABELLED]]
    print(learn_quality(labelled, folder / "quality.safetensors"))
    valid = [record(f"held-out-{number}", text) for number, text in enumerate(held_out)]
    for arm in ARMS:
        reference = f"{curation_gain_recipe.__file__}:{arm}"
        result = curate(reference, folder / "mixture", folder / "curation" / arm, 1, "local", phi4.__version__, print)
        write_shards([*ShardedRecords.open(result.shards), *valid], folder / "data" / arm / "text")
    tokenizer = learnt_tokenizer([document.text for document in documents])
    for seed in SEEDS:
        write_model(folder / "models" / str(seed), tokenizer, seed)


def record(name: str, text: str) -> Record:
    """A held-out text."""
    messages = (Message("user", ""), Message("assistant", text))
    return Record(name, messages, "held out", LICENCES["clean"], "valid", "text")


def learnt_tokenizer(texts: Sequence[str]) -> dict[str, Any]:
    """Byte-level BPE of 4,096 pieces, and Phi-4's added tokens behind them."""
    learner = tokenizers.Tokenizer(tokenizers.models.BPE())
    learner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=NUM_PIECES, initial_alphabet=alphabet, show_progress=False)
    learner.train_from_iterator(texts, trainer)
    learnt = json.loads(learner.to_str())["model"]
    merges = [(first, second) for first, second in learnt["merges"]]
    return tokenizer_json(learnt["vocab"], merges, added_tokens(), BYTE_LEVEL_SPLIT)


def added_tokens() -> list[AddedToken]:
    """Phi-4's, behind the pieces."""
    return [
        AddedToken(token_id, token.content, token.rstrip, token.special)
        for token_id, token in enumerate(PHI4_TOKENS, start=NUM_PIECES)
    ]


def write_model(directory: Path, tokenizer: dict[str, Any], seed: int) -> None:
    """A random model: Phi-4-Mini with other numbers."""
    released = load_preset("mini").config.raw
    ids = {token.content: token.id for token in added_tokens()}
    end = ids["<|endoftext|>"]
    rope = released["rope_scaling"]
    raw = {
        **released,
        "vocab_size": NUM_PIECES + len(ids),
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 6,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "initializer_range": 0.04,
        # A frequency in four: heads are 32 wide in place of 128.
        "rope_scaling": {**rope, **{name: rope[name][::4] for name in ("short_factor", "long_factor")}},
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), end),
    }
    config = read_config(raw)
    specs = {name: TensorSpec(torch.float32, shape) for name, shape in parameter_shapes(config).items()}
    ends = [ids["<|end|>"], end]
    with new_directory(directory) as partial:
        save_tokenizer(partial, tokenizer, phi4_tokenizer_config(added_tokens(), model_max_length=4096))
        write_json(partial / GENERATION_FILE, {"bos_token_id": end, "eos_token_id": ends, "pad_token_id": end})
        write_checkpoint(
            partial, config, specs, lambda name: random_tensor(name, specs[name], seed, 0.04), "released", ends
        )


# What came of them


def metrics(run: Path) -> list[dict[str, float]]:
    """All that a run reported."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def curve(run: Path) -> tuple[list[int], list[float]]:
    """Tokens seen, and the loss on held-out text."""
    reports = metrics(run)
    tokens = {int(report["step"]): int(report["tokens"]) for report in reports if "tokens" in report}
    points = [(tokens[int(r["step"])], r["valid/text/loss"]) for r in reports if "valid/text/loss" in r]
    return [x for x, _ in points], [y for _, y in points]


def kinds_table(folder: Path) -> list[str]:
    """What of each kind is in each arm."""
    counts = {}
    for arm in ARMS:
        records = ShardedRecords.open(folder / "data" / arm / "text").select("train")
        sizes: Counter[str] = Counter()
        for item in records:
            sizes[item.source] += len(item.answer.encode())
        counts[arm] = sizes
    lines = ["| kind | MB in the mixture | MB left | left |", "|---|---|---|---|"]
    for kind in SHARES:
        before, after = (counts[arm][kind] for arm in ARMS)
        lines.append(f"| {kind} | {before / 1e6:.2f} | {after / 1e6:.2f} | {100 * after / before:.1f} % |")
    return lines


def losses_table(folder: Path) -> list[str]:
    """The last loss of each run, and the difference of each seed."""
    lines = ["| seed | raw | curated | difference | tokens raw | tokens curated |", "|---|---|---|---|---|---|"]
    differences = []
    for seed in SEEDS:
        ends = {arm: [values[-1] for values in curve(folder / "runs" / f"{arm}-{seed}")] for arm in ARMS}
        differences.append(ends["curated"][1] - ends["raw"][1])
        lines.append(
            f"| {seed} | {ends['raw'][1]:.3f} | {ends['curated'][1]:.3f} | {differences[-1]:+.3f} "
            f"| {ends['raw'][0]:,} | {ends['curated'][0]:,} |"
        )
    mean, spread = statistics.mean(differences), statistics.stdev(differences)
    lines.append(f"\nCurated minus raw, nats a token: {mean:+.3f}, standard deviation over seeds {spread:.3f}.")
    return lines


def draw_curves(folder: Path) -> None:
    """A line for each run: held-out loss by tokens seen."""
    figure, panel = pyplot.subplots(figsize=(8, 4), layout="constrained")
    for number, arm in enumerate(ARMS):
        for seed in SEEDS:
            tokens, values = curve(folder / "runs" / f"{arm}-{seed}")
            panel.plot(tokens, values, "o-", color=f"C{number}", markersize=3, linewidth=1, label="_" * seed + arm)
    panel.set_xlabel("tokens seen")
    panel.set_ylabel("loss on held-out clean text, nats a token")
    panel.legend()
    figure.savefig(folder / "curves.svg", metadata={"Date": None})


def main() -> None:
    """Prepares, trains what is not trained yet, and sums up."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=416)
    parser.add_argument("--mixture-bytes", type=int, default=MIXTURE_BYTES)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    if not (folder / "models" / str(SEEDS[-1])).exists():
        prepare(folder, arguments.mixture_bytes)
    for seed in SEEDS:
        for arm in ARMS:
            run = folder / "runs" / f"{arm}-{seed}"
            if (run / MODEL_FOLDER).exists():
                continue
            result = train_stage(
                stage(seed, arguments.steps),
                folder / "models" / str(seed),
                (),
                folder / "data" / arm,
                run,
                resume=True,
            )
            if result.interrupted is not None:
                sys.exit(f"stopped at step {result.step} of {arm}-{seed}; the same command goes on")
    lines = [*kinds_table(folder), "", *losses_table(folder)]
    (folder / "table.md").write_text("\n".join(lines) + "\n")
    print(*lines, sep="\n")
    draw_curves(folder)


if __name__ == "__main__":
    main()
