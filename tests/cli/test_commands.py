"""The commands on the tiny checkpoint: what they print, and how they fail."""

import json
import os
import signal
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from cli.conftest import Phi4
from phi4 import __version__
from phi4.kernels.instructions import LEVELS

RunJson = Callable[..., Any]


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("media") / "picture.png"
    noise = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    PIL.Image.fromarray(noise).save(path)
    return path


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("media") / "sound.wav"
    tone = (np.sin(np.arange(44100) * 0.05) * 8000).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(44100)
        file.writeframes(tone.tobytes())
    return path


def test_ask_reports_what_it_used(phi4_json: RunJson, tiny_directory: Path, picture: Path, sound: Path) -> None:
    answer = phi4_json(
        "ask", "--model", str(tiny_directory), "--image", str(picture), "--audio", str(sound), "--max-tokens", "3", "Hi"
    )
    assert answer.keys() == {
        "text",
        "token_ids",
        "prompt_tokens",
        "prompt_token_ids",
        "finish_reason",
        "adapter",
        "rotary",
        "media",
        "tool_calls",
        "seconds",
    }
    assert (answer["adapter"], answer["rotary"], answer["finish_reason"]) == ("vision", "short", "length")
    assert len(answer["token_ids"]) == 3
    assert answer["prompt_tokens"] == len(answer["prompt_token_ids"])
    # 1 s at 16 kHz: 98 frames, 13 tokens.
    assert [medium["modality"] for medium in answer["media"]] == ["vision", "speech"]
    assert answer["media"][1]["tokens"] == 13


def test_a_question_from_standard_input_is_the_one_from_the_command_line(
    phi4_json: RunJson, tiny_directory: Path
) -> None:
    """The line break that `echo` adds is no part of it; others are."""
    common = ("ask", "--model", str(tiny_directory), "--max-tokens", "1")
    asked = phi4_json(*common, "One\nTwo")["prompt_token_ids"]
    assert phi4_json(*common, "-", stdin="One\nTwo\n")["prompt_token_ids"] == asked
    assert phi4_json(*common, "-", stdin="One\nTwo\n\n")["prompt_token_ids"] != asked


@pytest.mark.parametrize(("option", "adapter"), [("--image", "vision"), ("--audio", "speech")])
def test_ask_takes_the_adapter_of_the_medium(
    phi4_json: RunJson, tiny_directory: Path, picture: Path, sound: Path, option: str, adapter: str
) -> None:
    file = picture if option == "--image" else sound
    answer = phi4_json("ask", "--model", str(tiny_directory), option, str(file), "--max-tokens", "1", "Hi")
    assert answer["adapter"] == adapter


def test_a_cache_of_bytes_is_asked_for_by_name(phi4: Phi4, phi4_json: RunJson, tiny_directory: Path) -> None:
    asked = ("ask", "--model", str(tiny_directory), "--max-tokens", "3")
    assert len(phi4_json(*asked, "--kv-cache-dtype", "int8", "Hi")["token_ids"]) == 3
    refused = phi4(*asked, "--kv-cache-dtype", "int4", "Hi")
    assert refused.status == 2
    assert "int8" in refused.stderr


def test_a_cache_is_as_large_as_asked_for(phi4: Phi4, phi4_json: RunJson, tiny_directory: Path) -> None:
    asked = ("ask", "--model", str(tiny_directory), "--max-tokens", "3")
    assert len(phi4_json(*asked, "--cache-tokens", "256", "Hi")["token_ids"]) == 3
    refused = phi4(*asked, "--cache-tokens", "32", "Hello " * 40)
    assert refused.status == 2
    assert "--cache-tokens" in refused.stderr


def test_a_seed_repeats_the_answer(phi4_json: RunJson, tiny_directory: Path) -> None:
    arguments = ["ask", "--model", str(tiny_directory), "--temperature", "1", "--seed", "5", "--max-tokens", "8", "Hi"]
    assert phi4_json(*arguments)["token_ids"] == phi4_json(*arguments)["token_ids"]


def test_tools_enter_the_system_message(phi4_json: RunJson, tiny_directory: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools.json"
    tools.write_text('[{"name": "now", "description": "time", "parameters": {}}]')
    base = ["ask", "--model", str(tiny_directory), "--max-tokens", "1", "Hi"]
    with_tools, without = phi4_json(*base, "--tools", str(tools)), phi4_json(*base)
    assert with_tools["prompt_tokens"] > without["prompt_tokens"] + len(tools.read_text()) - 10


def test_transcribe_reports_a_bad_file_and_does_the_others(phi4: Phi4, tiny_directory: Path, sound: Path) -> None:
    result = phi4(
        "transcribe", "--model", str(tiny_directory), "--max-tokens", "2", "--json", str(sound), "/no/such.wav"
    )
    assert result.status == 2
    good, bad = json.loads(result.stdout)["files"]
    assert len(good["token_ids"]) == 2
    assert "/no/such.wav" in bad["error"]


def test_a_transcript_that_is_cut_off_says_so(phi4: Phi4, tiny_directory: Path, sound: Path) -> None:
    result = phi4("transcribe", "--model", str(tiny_directory), "--max-tokens", "2", str(sound))
    assert f"{sound}: cut off after 2 tokens; raise --max-tokens" in result.stderr


def test_a_chat_remembers_resets_and_survives_mistakes(phi4: Phi4, tiny_directory: Path, picture: Path) -> None:
    lines = ["Hello", "Again", f"/image {picture}", "/image /no/such.png", "What is it?", "/reset", "/dance", "Bye"]
    result = phi4("chat", "--model", str(tiny_directory), "--max-tokens", "2", stdin="\n".join(lines))
    assert result.status == 0
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 2
    assert "/no/such.png" in errors[0]
    assert "/dance" in errors[1]
    prompts = [int(line.split(" ")[0]) for line in result.stderr.splitlines() if " tokens · " in line]
    first, second, third, fourth = prompts
    assert first < second < third
    assert fourth < second
    assert "adapter vision" in result.stderr


def test_init_then_inspect(phi4: Phi4, phi4_json: RunJson, tmp_path: Path) -> None:
    assert phi4("init", "tiny", str(tmp_path / "model")).status == 0
    report = phi4_json("inspect", str(tmp_path / "model"))
    assert report["total_values"] == sum(report["values"].values())
    assert report["adapters"] == {"vision": {"rank": 4, "scale": 2.0}, "speech": {"rank": 8, "scale": 2.0}}


def test_convert_there_and_back_keeps_the_digest(
    phi4: Phi4, phi4_json: RunJson, tiny_directory: Path, tmp_path: Path
) -> None:
    assert phi4("convert", str(tiny_directory), str(tmp_path / "split"), "--to", "packs").status == 0
    packs = [f"--pack={tmp_path / 'split' / name}.safetensors" for name in ("vision", "speech")]
    assert phi4("convert", str(tmp_path / "split" / "base"), str(tmp_path / "joined"), *packs).status == 0
    before, after = (phi4_json("inspect", str(path)) for path in (tiny_directory, tmp_path / "joined"))
    assert before | {"path": ""} == after | {"path": ""}


def test_a_quantised_model_answers_and_has_the_digest_of_its_source(
    phi4: Phi4, phi4_json: RunJson, tiny_directory: Path, picture: Path, tmp_path: Path
) -> None:
    directory = str(tmp_path / "quantised")
    options = ("--scheme", "mixed", "--encoders", "8bit", "--adapters", "8bit")
    assert phi4("quantize", str(tiny_directory), directory, *options).stdout == f"{directory}\n"
    asked = ("--image", str(picture), "--max-tokens", "3", "Hi")
    assert len(phi4_json("ask", "--model", directory, *asked)["token_ids"]) == 3
    digests = {phi4_json("inspect", path)["base_digest"] for path in (str(tiny_directory), directory)}
    assert len(digests) == 1
    assert phi4("verify", directory).status == 0
    assert phi4("quantize", directory, str(tmp_path / "twice")).status == 2


def test_quantize_rounds_for_texts_and_refuses_what_is_none(phi4: Phi4, tiny_directory: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("All that is read is read again.", encoding="utf-8")
    assert phi4("quantize", str(tiny_directory), str(tmp_path / "fitted"), "--text", str(text)).status == 0
    for content, said in ((b"\xff\xfe", "no text to round for"), (b"", "holds no text")):
        text.write_bytes(content)
        refused = phi4("quantize", str(tiny_directory), str(tmp_path / "none"), "--text", str(text))
        assert refused.status == 2
        assert said in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ask", "--model", "/no/such/model", "Hi"], "/no/such/model"),
        (["ask", "--model", "owner/never-pulled", "Hi"], "phi4 pull owner/never-pulled"),
        (["ask", "--temperature", "-1", "Hi"], "temperature"),
        (["ask", "--tools", "/no/tools.json", "Hi"], "/no/tools.json"),
        (["inspect", "/no/such/model"], "/no/such/model"),
        (["init", "tiny", "/proc/model"], "/proc"),
        (["convert", "/no/such.gguf", "/tmp/never"], "/no/such.gguf"),
        (["ask", "--max-tokens", "many", "Hi"], "--max-tokens"),
    ],
)
def test_a_mistake_ends_with_status_2_and_a_message(phi4: Phi4, arguments: list[str], message: str) -> None:
    result = phi4(*arguments)
    assert result.status == 2
    assert message in result.stderr


def test_invalid_utf_8_is_named(tiny_directory: Path) -> None:
    command = [sys.executable, "-m", "phi4", "ask", "--model", str(tiny_directory), b"caf\xe9"]
    result = subprocess.run(command, capture_output=True, check=False)
    assert result.returncode == 2
    assert b"not valid Unicode" in result.stderr
    assert b"Traceback" not in result.stderr


def test_the_command_line_starts_without_torch() -> None:
    code = "import sys, phi4.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_version_says_what_computes(phi4: Phi4) -> None:
    said = phi4("--version").stdout
    assert said.startswith(f"phi4 {__version__}, torch ")
    assert ("no native kernels" in said) == (not LEVELS)


def test_bench_compares_every_speed_with_what_the_machine_allows(phi4_json: RunJson, tiny_directory: Path) -> None:
    sizes = ["--prompt-tokens", "40", "--new-tokens", "3", "--rows", "5", "--rounds", "1"]
    report = phi4_json("bench", "--model", str(tiny_directory), *sizes)
    assert report.keys() == {
        "model",
        "dtype",
        "device",
        "threads",
        "kernels",
        "torch",
        "rounds",
        "load_s",
        "peak_resident_bytes",
        "tensor_bytes",
        "step_bytes",
        "prompt_tokens",
        "new_tokens",
        "machine",
        "prefill",
        "decode",
        "decode_rows",
    }
    assert (report["prompt_tokens"], report["new_tokens"], report["rounds"]) == (40, 3, 1)
    assert 0 < report["step_bytes"] < report["tensor_bytes"] < report["peak_resident_bytes"]
    assert report["machine"].keys() == {"read_bytes_per_s", "operations_per_s", "product"}
    for name, rows in (("prefill", 1), ("decode", 1), ("decode_rows", 5)):
        rate = report[name]
        assert rate["rows"] == rows
        assert rate["bound"] in ("bandwidth", "products")
        assert rate["tokens_per_s"] > 0
        assert rate["percent_of_limit"] == pytest.approx(100 * rate["tokens_per_s"] / rate["limit_tokens_per_s"])


def test_bench_prints_a_table(phi4: Phi4, tiny_directory: Path) -> None:
    sizes = ["--prompt-tokens", "5", "--new-tokens", "1", "--rows", "2", "--rounds", "1"]
    outcome = phi4("bench", "--model", str(tiny_directory), *sizes)
    assert outcome.status == 0, outcome.stderr
    for words in ("reading 5 tokens", "decoding 1 row", "decoding 2 rows", "GB/s", "G operations/s"):
        assert words in outcome.stdout


def test_bench_refuses_what_the_context_cannot_hold(phi4: Phi4, tiny_directory: Path) -> None:
    outcome = phi4("bench", "--model", str(tiny_directory), "--prompt-tokens", "200000")
    assert outcome.status == 2
    assert "200001 tokens of prompt and answer do not fit the model's context of 131072" in outcome.stderr


@pytest.mark.parametrize("again", [False, True])
def test_ctrl_c_ends_quietly_however_early_and_often(tmp_path: Path, again: bool) -> None:
    presses_again_at_the_end = (
        "import os, signal, threading, time\n"
        "def press():\n"
        "    for _ in range(500):\n"
        "        if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:\n"
        "            break\n"
        "        time.sleep(0.01)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(60)\n"
        "threading.Thread(target=press).start()\n"
    )
    (tmp_path / "typer.py").write_text((presses_again_at_the_end if again else "") + "raise KeyboardInterrupt\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "phi4", "--help"]
    result = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (-signal.SIGINT if again else 130, b"")
