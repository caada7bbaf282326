"""Plots have room for what stands in them."""

from phi4.eval.registry import TASKS
from phi4.svg_plots import LABEL_WIDTH


def test_the_names_of_all_tasks_fit_into_a_plot() -> None:
    # The widest usual font, DejaVu Sans, takes 6.5 px a letter at most.
    labels = [
        f"{task.name}{' (25-shot)' if task.rows and task.rows.examples else ''}, {metric.name}"
        for task in TASKS.values()
        for metric in task.metrics
    ]
    assert 6.5 * max(map(len, labels)) <= LABEL_WIDTH - 8
