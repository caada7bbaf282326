"""The command that proves what a pack leaves untouched."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from phi4.cli.options import DeviceOption, DtypeOption, Json, Packs, print_json
from phi4.cli.progress import late_progress

if TYPE_CHECKING:
    from phi4.verify import AnswerProof, Verification


def verify(
    model: Annotated[str, typer.Argument(help="Model directory, `nano`, or pulled OWNER/NAME.")] = "nano",
    pack: Packs = None,
    data: Annotated[Path | None, typer.Option("--data", "-d", help="One folder of shards per data set.")] = None,
    limit: Annotated[int, typer.Option("--limit", help="Test records of each task of a data set.")] = 50,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    json_output: Json = False,
) -> None:
    """Prove that modalities left the language model untouched: digests, logits of text, and answers with --data.

    The exit status is 1 if a proof fails.

    Examples:

        phi4 verify nano

        phi4 verify nano --pack vision.safetensors --pack speech.safetensors --data shards --limit 20

        phi4 verify ./Phi-4-multimodal-instruct --json
    """
    import torch

    from phi4.assistant import best_device, check_device
    from phi4.checkpoint import hub
    from phi4.verify import verify as verify_model

    with answer_progress() as progress:
        verification = verify_model(
            hub.resolve(model),
            pack or hub.shipped_packs(model),
            data,
            limit,
            dtype=getattr(torch, dtype) if dtype else None,
            device=check_device(device or best_device()),
            progress=progress,
        )
    if json_output:
        print_json(verification.to_json())
    else:
        print_verification(verification)
    if not verification.passed:
        raise typer.Exit(1)


def print_verification(verification: "Verification") -> None:
    """Prints a verification for people."""
    console = Console()
    table = Table("proof", "found", "holds", title=Text(str(verification.directory)))
    for digest in verification.digests:
        found = digest.found[:16] if digest.passed else f"{digest.found[:16]}, not {digest.expected[:16]}"
        table.add_row(Text(f"base digest, {digest.place}"), found, mark(digest.passed))
    for logits in verification.logits:
        found = f"largest difference {logits.largest_difference:g} in {logits.rows} rows"
        table.add_row(Text(f"logits, {logits.setting}"), found, mark(logits.passed))
    if verification.media_difference is not None:
        table.add_row("logits of the media there", f"changed by adapters, up to {verification.media_difference:g}", "")
    console.print(table)
    if verification.answers:
        console.print(answer_table(verification.answers))
    for test, records in verification.skipped.items():
        console.print(f"left out: {records} records of {test}; the model lacks a modality", markup=False)
    for modality in verification.untested:
        console.print(f"no test records for {modality} alone: its answers were not compared", markup=False)
    console.print(f"base digest {verification.base_digest}", highlight=False, soft_wrap=True)
    if verification.passed:
        console.print("The language model is untouched.", style="green")
    elif verification.logits:
        console.print("Not all proofs hold.", style="red")
    else:
        console.print("A pack was made for another base, or for this one before it changed.", style="red")
        console.print("Nothing else was tried.")


def answer_table(proofs: "tuple[AnswerProof, ...]") -> Table:
    """A table of held-out scores, alone and together."""
    table = Table("test", "media", "records", "exact", "alone", "letters", "word errors", "holds")
    for proof in proofs:
        score = proof.together
        table.add_row(
            Text(proof.task if proof.task == proof.dataset else f"{proof.dataset}: {proof.task}"),
            Text(proof.media),
            f"{score.records:,}",
            f"{score.exact:.1%}",
            f"{proof.alone.exact:.1%}" if proof.alone else "",
            f"{score.character_accuracy:.1%}",
            f"{score.word_error_rate:.1%}",
            mark(proof.passed) if proof.passed else f"{len(proof.different)} differ",
        )
    return table


def mark(passed: bool) -> str:
    """Yes or no, in colour."""
    return "[green]yes[/]" if passed else "[red]NO[/]"


def answer_progress() -> AbstractContextManager[Callable[[int, int], None]]:
    """Shows a progress bar on stderr from the first answer on: (answers so far, answers in all)."""
    columns = (TextColumn("answering"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return late_progress("answers", *columns)
