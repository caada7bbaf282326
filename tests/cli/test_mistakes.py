"""Mistakes that are made at a keyboard: what is refused, with which words, and that nothing is lost by them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.conftest import Phi4
from phi4.assistant import AnswerStream
from phi4.errors import CapacityError


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--max-rows", "0"], "--max-rows"),
        (["--cache-tokens", "0"], "--cache-tokens"),
        (["--max-context", "-5"], "--max-context"),
        (["--drain-seconds", "nan"], "--drain-seconds"),
        (["--max-image-megapixels", "nan"], "--max-image-megapixels"),
        (["--max-image-megapixels", "0"], "max_image_pixels must be above 0, not 0.0"),
        (["--max-batch-tokens", "8"], "max_step_tokens (--max-batch-tokens) 8"),
        (["--max-body-mb", "300"], "raise max_bodies_bytes (--max-bodies-mb)"),
        (["--temperature", "0.00001"], "temperature must be 0 (greedy) or from 0.0001 to 100, not 1e-05"),
    ],
)
def test_serve_refuses_limits_before_it_loads_a_model(phi4: Phi4, options: list[str], said: str) -> None:
    refused = phi4("serve", "--model", "/no/such/model", *options)
    assert refused.status == 2
    assert said in refused.stderr


def test_a_chat_goes_on_behind_attachments_that_no_file_can_be(phi4: Phi4, tiny_directory: Path) -> None:
    attached = ("/image", "/audio ~nobody-of-this-name/a.wav", "/image a\0b.png", f"/image {tiny_directory}")
    lines = "\n".join(("Hello", *attached, "Bye"))
    result = phi4("chat", "--model", str(tiny_directory), "--max-tokens", "2", stdin=lines)
    assert result.status == 0
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 4
    assert "/image picture.png" in errors[0]
    assert "~nobody-of-this-name" in errors[1]
    first, second = (int(line.split(" ")[0]) for line in result.stderr.splitlines() if " tokens · " in line)
    assert first < second


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["eval", "MODEL", "--tasks", "perplexity", "--data", "data", "--out", "a file"], "a file of that name"),
        (
            ["eval", "MODEL", "--tasks", "gsm8k", "--data", "data", "--out", "out"],
            "gsm8k.jsonl, line 2 cannot be read as JSON",
        ),
        (
            ["compare", "data", "data"],
            "data holds no evaluation: there is no data/results.json; `phi4 eval --out data`",
        ),
        (["train", "--list", "recipe.py"], "recipe.py:stage fails: ZeroDivisionError"),
        (["learn-quality", "labelled.jsonl", "--out", "q"], "labelled.jsonl, line 1 lacks text or good"),
        (["learn-quality", "data", "--out", "q"], "data is no file"),
        (["inspect", "a file"], "is truncated or not a safetensors file"),
        (["ask", "--model", "MODEL", "--pack", "data", "Hi"], "data is a directory"),
        (
            ["ask", "--model", "MODEL", "--pack", "MODEL/model.safetensors", "Hi"],
            "`phi4 convert --to packs` write packs",
        ),
        (["ask", "--model", "MODEL", "--image", "data", "Hi"], "data cannot be read as a picture: Is a directory"),
        (
            ["ask", "--model", "MODEL", "--audio", "none.wav", "Hi"],
            "none.wav cannot be read as sound: No such file or directory",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_told_in_one_line(
    phi4: Phi4, tiny_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("a file").write_text("a file")
    Path("data/perplexity.jsonl").write_text('{"text": "Hello there."}\n')
    Path("data/gsm8k.jsonl").write_text('{"question": "1 + 1?", "answer": "#### 2"}\n{"question": \n')
    Path("labelled.jsonl").write_bytes('{"text": "café"'.encode("latin-1"))
    Path("recipe.py").write_text(
        "from phi4.train.stage import Stage\n\n\ndef stage() -> Stage:\n    return Stage(name=str(1 / 0))\n"
    )
    result = phi4(*(argument.replace("MODEL", str(tiny_directory)) for argument in arguments))
    assert result.status == 2
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_new_pack_may_lie_in_a_new_folder(phi4: Phi4, tiny_directory: Path, tmp_path: Path) -> None:
    base, pack = tmp_path / "split" / "base", tmp_path / "new" / "vision.safetensors"
    assert phi4("convert", str(tiny_directory), str(base.parent), "--to", "packs").status == 0
    assert phi4("new-pack", "vision", str(pack), "--model", str(base), "--like", "tiny").status == 0
    assert pack.is_file()


def test_what_is_said_of_an_answer_that_breaks_off_begins_a_line(
    phi4: Phi4, tiny_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(_: AnswerStream) -> Iterator[str]:
        yield "The capital"
        raise CapacityError("the cache is full")

    monkeypatch.setattr(AnswerStream, "__iter__", break_off)
    result = phi4("chat", "--model", str(tiny_directory), stdin="Hello")
    assert result.stdout == "The capital\n"
    assert result.stderr.endswith("\nerror: the cache is full\n")


def test_a_line_that_is_no_utf_8_takes_no_other_with_it(tiny_directory: Path) -> None:
    command = [sys.executable, "-m", "phi4", "chat", "--model", str(tiny_directory), "--max-tokens", "2"]
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    result = subprocess.run(command, input=b"Hello\n\xff\nBye\n", capture_output=True, env=environment, check=False)
    assert result.stderr.count(b" tokens \xc2\xb7 ") == 2
    assert result.stderr.count(b"error: ") == 1
