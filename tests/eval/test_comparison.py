"""Two evaluations side by side."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from phi4.errors import DataError
from phi4.eval.answers import Answered, AnswerFile
from phi4.eval.comparison import compare_evaluations, to_markdown, write_comparison
from phi4.eval.resample import Estimate
from phi4.eval.results import MetricResult, Results, TaskResult, write_results


def write_evaluation(folder: Path, right: list[bool], name: str = "sums", limit: int | None = None) -> Path:
    """An evaluation with one task, whose answers are right or wrong as told."""
    folder.mkdir()
    with AnswerFile(folder / f"{name}.jsonl") as file:
        for number, is_right in enumerate(right):
            text = "right" if is_right else f"wrong in {folder.name}"
            file.add(Answered(f"r{number}", f"q{number}", (text,), (), {"exact match": (float(is_right), 1.0)}))
    share = sum(right) / len(right)
    metric = MetricResult("exact match", "ratio", True, Estimate(share, share, share))
    task = TaskResult(name, len(right), len(right), (metric,), [], {})
    model = {"name": folder.name, "packs": {}, "base_digest": "0" * 64, "dtype": "float32"}
    environment = {"phi4": "x", "libraries": {"torch": "y"}, "kernels": None, "device": "cpu", "command": "phi4 eval"}
    write_results(Results(model, {"limit": limit, "seed": 0}, environment, {name: task}), folder)
    return folder


def test_a_task_that_moved_is_told_from_one_that_did_not(tmp_path: Path) -> None:
    before = write_evaluation(tmp_path / "before", [False] * 20 + [True] * 20)
    better = write_evaluation(tmp_path / "better", [True] * 30 + [True] * 10)
    (row,) = compare_evaluations(before, better).tasks
    assert (row.first, row.second, row.verdict) == (0.5, 1.0, "better")
    assert row.difference.value == 0.5
    (row,) = compare_evaluations(better, before).tasks
    assert row.verdict == "worse"
    luck = write_evaluation(tmp_path / "luck", [True] + [False] * 19 + [True] * 20)
    (row,) = compare_evaluations(before, luck).tasks
    assert (row.verdict, row.different) == ("unclear", 20)
    (row,) = compare_evaluations(before, before).tasks
    assert (row.verdict, row.different, row.difference.p_value) == ("same", 0, 1.0)
    assert "| sums | exact match | 50.0 % | 100.0 % | 50.0 %" in to_markdown(compare_evaluations(before, better))


def test_a_comparison_is_written_with_a_plot_of_its_differences(tmp_path: Path) -> None:
    before = write_evaluation(tmp_path / "before", [False] * 20 + [True] * 20)
    after = write_evaluation(tmp_path / "after", [True] * 30 + [True] * 10)
    write_comparison(compare_evaluations(before, after), tmp_path / "moved")
    assert "![differences with 95 % intervals](comparison.svg)" in (tmp_path / "moved" / "comparison.md").read_text()
    plot = ElementTree.parse(tmp_path / "moved" / "comparison.svg")
    assert plot.findtext(".//{*}text") == "sums, exact match"
    (dot,) = plot.findall(".//{*}circle")
    # No difference is in the middle of the line, at 450.
    assert float(dot.get("cx", 0)) > 520
    assert "results.svg" in (before / "results.md").read_text()
    ElementTree.parse(before / "results.svg")


def test_evaluations_that_cannot_be_compared_say_why(tmp_path: Path) -> None:
    first = write_evaluation(tmp_path / "first", [True, False])
    with pytest.raises(DataError, match="nowhere holds no evaluation"):
        compare_evaluations(first, tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"has the tasks sums, .* other: none is in both"):
        compare_evaluations(first, write_evaluation(tmp_path / "second", [True], name="other"))
    with pytest.raises(DataError, match=r"2 answers and .* 3, to questions that are not the same"):
        compare_evaluations(first, write_evaluation(tmp_path / "third", [True] * 3))
    (first / "sums.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"sums.jsonl, line 1 is no answer: 'id'"):
        compare_evaluations(first, first)
    (first / "results.json").write_text("{}")
    with pytest.raises(DataError, match="is damaged"):
        compare_evaluations(first, first)
