"""The report of a curation: what went in and out of each step and why, in Markdown and as a page of its own."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from phi4.data.curate.account import StepAccount
from phi4.data.curate.mixture import Taken
from phi4.svg_plots import NAMESPACE, bars

Table = tuple[Sequence[str], Sequence[Sequence[str]]]

_DOCUMENTS = "Documents left after each step"

_STYLE = """body { font: 15px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 } th, td { padding: .2em .8em; border-bottom: 1px solid #ddd }
td { text-align: right } th, td:first-child { text-align: left } td.text { text-align: left }
pre { white-space: pre-wrap; background: #f5f5f5; padding: .6em; margin: .4em 0 }"""


@dataclass(frozen=True)
class Report:
    """All that a report tells.

    Attributes:
        name: of the data set.
        steps: accounts, in the order of the steps.
        taken: of each collection.
        files: how many raw files there were.
        file_bytes: their size.
        seconds: since this run of the command began; what an earlier run had done is not in it.
        licences: records of each licence.
    """

    name: str
    steps: tuple[StepAccount, ...]
    taken: tuple[Taken, ...]
    files: int
    file_bytes: int
    seconds: float
    licences: dict[str, int]


def write_report(report: Report, path: Path) -> None:
    """Writes the report in Markdown with a plot beside it (SVG), and as HTML, which needs no other file."""
    plot = path.with_suffix(".svg")
    path.write_text(_markdown(report, plot.name), encoding="utf-8", newline="\n")
    plot.write_text(bars(_documents(report), NAMESPACE), encoding="utf-8", newline="\n")
    path.with_suffix(".html").write_text(_page(report), encoding="utf-8", newline="\n")


def _summary(report: Report) -> str:
    first, last = report.steps[0], report.steps[-1]
    return (
        f"{report.files:,} files of {_mb(report.file_bytes)} MB held {first.documents_in:,} documents; "
        f"{last.documents_out:,} of them, {_mb(last.bytes_out)} MB, are in the data set. Every other one is in "
        f"`removed.jsonl.gz` with the step that left it out and the reason. {report.seconds:.1f} s, {date.today()}."
    )


def _steps_table(report: Report) -> Table:
    head = ("step", "in", "out", "left out", "changed", "MB in", "MB out", "s", "documents/s", "MB/s")
    return head, [
        (
            step.name,
            f"{step.documents_in:,}",
            f"{step.documents_out:,}",
            f"{step.documents_in - step.documents_out:,}",
            f"{step.changed:,}",
            _mb(step.bytes_in),
            _mb(step.bytes_out),
            f"{step.seconds:.2f}",
            _rate(step.documents_in, step.seconds),
            _rate(step.bytes_in / 1e6, step.seconds),
        )
        for step in report.steps
    ]


def _reasons_table(report: Report) -> Table:
    rows = [
        (step.name, reason, f"{count:,}", f"{100 * count / max(step.documents_in, 1):.2f} %")
        for step in report.steps
        for reason, count in step.reasons.most_common()
    ]
    notes = [
        (step.name, note, f"{count:,}", "kept") for step in report.steps for note, count in sorted(step.notes.items())
    ]
    return ("step", "reason", "documents", "of those that came"), rows + notes


def _taken_table(report: Report) -> Table:
    head = ("collection", "share wanted", "share taken", "tokens there", "tokens taken", "documents there", "taken")
    total = max(sum(item.tokens_taken for item in report.taken), 1)
    return head, [
        (
            item.collection,
            "all" if item.share is None else f"{100 * item.share:.1f} %",
            f"{100 * item.tokens_taken / total:.1f} %",
            f"{item.tokens_there:,}",
            f"{item.tokens_taken:,}",
            f"{item.documents_there:,}",
            f"{item.documents_taken:,}",
        )
        for item in report.taken
    ]


def _licence_table(report: Report) -> Table:
    return ("licence", "records"), [(name, f"{count:,}") for name, count in sorted(report.licences.items())]


def _sections(report: Report) -> list[tuple[str, Table]]:
    return [
        ("Steps", _steps_table(report)),
        ("Why documents were left out", _reasons_table(report)),
        ("Mixture", _taken_table(report)),
        ("Licences", _licence_table(report)),
    ]


def _markdown(report: Report, plot: str) -> str:
    lines = [f"# Curation of {report.name}", "", _summary(report), "", f"![{_DOCUMENTS}]({plot})", ""]
    for title, (head, rows) in _sections(report):
        lines += [f"## {title}", "", _row(head), _row(["---"] * len(head)), *map(_row, rows), ""]
    lines += ["Seconds are those of all workers together, without reading and writing between phases.", ""]
    lines += ["## Samples of what was left out", ""]
    for step, reason, samples in _samples(report):
        lines += [f"### {step}: {reason}", ""]
        for name, text in samples:
            lines += [f"`{name}`", "", *("    " + line for line in text.splitlines() or [""]), ""]
    return "\n".join(lines)


def _page(report: Report) -> str:
    parts = [f"<h1>Curation of {html.escape(report.name)}</h1>", f"<p>{html.escape(_summary(report))}</p>"]
    documents = _documents(report)
    parts += [f"<h2>{_DOCUMENTS}</h2>", _plot(documents, f"{documents[0][2]:,} documents at first")]
    seconds = [(step.name, step.seconds, step.seconds) for step in report.steps]
    parts += ["<h2>Seconds of each step</h2>", _plot(seconds, "all workers together")]
    for title, (head, rows) in _sections(report):
        cells = ["<tr>" + "".join(f"<th>{html.escape(name)}</th>" for name in head) + "</tr>"]
        cells += ["<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
        parts += [f"<h2>{html.escape(title)}</h2>", "<table>", *cells, "</table>"]
    parts.append("<h2>Samples of what was left out</h2>")
    for step, reason, samples in _samples(report):
        parts.append(f"<h3>{html.escape(step)}: {html.escape(reason)}</h3>")
        parts += [f"<p>{html.escape(name)}</p><pre>{html.escape(text)}</pre>" for name, text in samples]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(report.name)}</title>'
        f"<style>{_STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _documents(report: Report) -> list[tuple[str, int, int]]:
    return [(step.name, step.documents_out, step.documents_in) for step in report.steps]


def _plot(rows: Sequence[tuple[str, float, float]], caption: str) -> str:
    return f"{bars(rows)}<p>{html.escape(caption)}</p>"


def _samples(report: Report) -> list[tuple[str, str, list[tuple[str, str]]]]:
    return [(step.name, reason, samples) for step in report.steps for reason, samples in step.samples.items()]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _mb(size: float) -> str:
    return f"{size / 1e6:,.2f}"


def _rate(amount: float, seconds: float) -> str:
    return "" if seconds < 1e-4 else f"{amount / seconds:,.1f}"
