"""The law of the learning rate, fitted to losses that are known to follow one."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from phi4.cli import main
from phi4.errors import TrainingError
from phi4.train.rate_law import EXPONENT, RateLaw, RateRun, read_run

B = 1.5
RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2)
TOKENS = (2e5, 1e6, 1e7)


def runs_of(exponent: float, scale: float = B, rates: Sequence[float] = RATES) -> list[RateRun]:
    """Each length's loss is a parabola over the logarithm of the rate, least at scale * tokens ** exponent."""
    return [
        RateRun(tokens, rate, 3 + tokens**-0.1 + 0.2 * math.log(rate / (scale * tokens**exponent)) ** 2)
        for tokens in TOKENS
        for rate in rates
    ]


def test_the_constant_comes_back_and_the_rate_extrapolates() -> None:
    law = RateLaw.fit(runs_of(EXPONENT))
    assert law.scale == pytest.approx(B, rel=1e-9)
    assert law.free_exponent == pytest.approx(EXPONENT, abs=1e-9)
    assert law.rate(5e12) == pytest.approx(B * 5e12**EXPONENT)
    assert [best.loss for best in law.best] == pytest.approx([3 + tokens**-0.1 for tokens in TOKENS])


def test_an_exponent_that_is_another_is_told() -> None:
    """B is then the one that is right in the middle of the lengths."""
    law = RateLaw.fit(runs_of(-0.2, scale=0.08))
    assert law.free_exponent == pytest.approx(-0.2, abs=1e-9)
    middle = math.exp(sum(map(math.log, TOKENS)) / len(TOKENS))
    assert law.rate(middle) == pytest.approx(0.08 * middle**-0.2)


def test_lengths_that_nearly_agree_are_one_and_equal_rates_are_averaged() -> None:
    runs = [
        RateRun(1e6 * (1 + 0.01 * n), rate, loss) for n, (rate, loss) in enumerate(((1, 5), (2, 4), (2, 2), (4, 5)))
    ]
    law = RateLaw.fit(runs)
    assert len(law.best) == 1
    assert (law.best[0].learning_rate, law.best[0].loss) == pytest.approx((2.0, 3.0))
    assert law.free_exponent is None


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        (RATES[4:], "at the edge; train with lower rates too"),
        (RATES[:1], "train with three rates or more"),
        (RATES[:2], "train with three rates or more"),
        (RATES[:3], "at the edge; train with higher rates too"),
    ],
)
def test_a_best_rate_at_the_edge_is_no_best_rate(rates: Sequence[float], said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        RateLaw.fit(runs_of(EXPONENT, rates=rates))


def test_runs_that_say_nothing_are_refused() -> None:
    with pytest.raises(TrainingError, match="there are no runs"):
        RateLaw.fit([])
    with pytest.raises(TrainingError, match="leave runs that diverged out"):
        RateLaw.fit([RateRun(1e6, rate, loss) for rate, loss in ((1, 2), (2, math.nan), (3, 3))])


def write_run(folder: Path, run: RateRun, valid: Sequence[str] = ("text",), finished: bool = True) -> Path:
    """What a run of two steps reports."""
    reports = [
        {"step": 1, "learning_rate": run.learning_rate, "tokens": run.tokens // 2},
        {"step": 2, "learning_rate": run.learning_rate / 2, "tokens": run.tokens},
    ]
    scores = {f"valid/{name}/loss": run.loss + number for number, name in enumerate(valid)}
    reports.insert(len(reports) if finished else 1, {"step": 2 if finished else 1, **scores})
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(report) + "\n" for report in reports))
    return folder


def test_a_run_is_read_from_what_it_reported(tmp_path: Path) -> None:
    run = RateRun(1e6, 3e-3, 4.5)
    assert read_run(write_run(tmp_path / "a", run)) == run
    two = write_run(tmp_path / "b", run, valid=("text", "code"))
    assert read_run(two, "text") == run
    with pytest.raises(TrainingError, match="held-out losses of code, text; name one"):
        read_run(two)
    with pytest.raises(TrainingError, match="no held-out loss: its data hold no records of the split valid"):
        read_run(write_run(tmp_path / "d", run, valid=()))
    with pytest.raises(TrainingError, match="is not finished"):
        read_run(write_run(tmp_path / "c", run, finished=False))
    with pytest.raises(TrainingError, match=r"holds no metrics\.jsonl"):
        read_run(tmp_path / "none")
    with (tmp_path / "a" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    with pytest.raises(TrainingError, match=r"metrics\.jsonl is damaged: .*; go on with --resume"):
        read_run(tmp_path / "a")


def test_the_command_reads_runs_and_says_the_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(write_run(tmp_path / str(n), run)) for n, run in enumerate(runs_of(EXPONENT))]
    with pytest.raises(SystemExit):
        main(["rate-law", *folders, "--tokens", "5e12"])
    output = capsys.readouterr().out
    assert "LR*(D) = 1.5 D^-0.32; fitted freely, the exponent would be -0.320" in output
    assert f"LR*(5e+12) = {B * 5e12**EXPONENT:.3g}" in output
