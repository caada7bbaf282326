"""The forms in which the peers of peers.py take the same weights, each written by the peer's own tool or for it."""

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from peer_programs.gguf_file import write_gguf

from phi4.checkpoint.digest import base_digest, named_digest
from phi4.checkpoint.layouts import open_checkpoint

PROGRAMS = Path(__file__).parent / "peer_programs"


@dataclass(frozen=True)
class Form:
    """A file or directory of weights that a command writes.

    Attributes:
        suffix: of its name, behind the model's identity.
        command: makes a command line out of a Python that has the peer, the source and the destination.
        source: the form that it is made of; None for the model's directory.
    """

    suffix: str
    command: Callable[[str, Path, Path], list[str]]
    source: str | None = None


def program(name: str, *options: str) -> Callable[[str, Path, Path], list[str]]:
    """A command that runs a program of `peer_programs/` with source and destination."""
    return lambda python, source, destination: [
        python,
        str(PROGRAMS / name),
        str(source),
        str(destination),
        *options,
    ]


def optimum_command(python: str, source: Path, destination: Path) -> list[str]:
    """4 bits in groups of 32 for every linear; the embedding, which is the head too, gets the tool's 8 bits."""
    options = ["--task", "text-generation-with-past", "--weight-format", "int4", "--group-size", "32", "--ratio", "1.0"]
    module = ["-m", "optimum.commands.optimum_cli", "export", "openvino"]
    return [python, *module, "--model", str(source), *options, str(destination)]


def builder_command(python: str, source: Path, destination: Path) -> list[str]:
    """4 bits in groups of 32, products in 8 bits: the builder's own choices for a CPU."""
    options = ["--precision", "int4", "--execution_provider", "cpu", "--cache_dir", f"{destination}.cache"]
    module = ["-m", "onnxruntime_genai.models.builder"]
    return [python, *module, "--input", str(source), "--output", str(destination), *options]


FORMS = {
    "F32": Form("F32.gguf", program("llama_cpp_quantize.py", "F32"), source="BF16"),
    "Q4_K_M": Form("Q4_K_M.gguf", program("llama_cpp_quantize.py", "Q4_K_M"), source="BF16"),
    "Q4_0": Form("Q4_0.gguf", program("llama_cpp_quantize.py", "Q4_0"), source="BF16"),
    "Q8_0": Form("Q8_0.gguf", program("llama_cpp_quantize.py", "Q8_0"), source="BF16"),
    "vLLM int8": Form("vllm-int8", program("vllm_int8_weights.py")),
    "OpenVINO int4": Form("openvino-int4", optimum_command),
    "ONNX Runtime int4": Form("onnxruntime-int4", builder_command),
    "mistral.rs Q4K": Form("mistralrs-q4k", program("mistralrs_q4k_weights.py")),
}


@cache
def weights_digest(directory: Path) -> str:
    """Hashes the weights of a model's language model, which takes some seconds for a large one."""
    return base_digest(open_checkpoint(directory).tensors)


def identity(directory: Path) -> str:
    """Names a model by its folder and its content: what is written into that folder later gets forms of its own."""
    config = (directory / "config.json").read_bytes()
    content = hashlib.sha256(config + weights_digest(directory).encode())
    return f"{directory.resolve().name}-{content.hexdigest()[:12]}"


def is_made_from(quantised: Path, directory: Path) -> bool:
    """Whether a quantised directory has the weights of another one."""
    made = open_checkpoint(quantised)
    return named_digest(made.config, made.tensors) == weights_digest(directory)


def prepare(name: str, directory: Path, work: Path, python: str) -> Path:
    """Returns where a form of a model's weights is, after writing it into `work` unless it is there.

    Raises:
        subprocess.CalledProcessError: if the peer's tool fails; what it said is in `stderr`.
    """
    work.mkdir(parents=True, exist_ok=True)
    model = identity(directory)
    if name == "BF16":
        path = work / f"{model}-BF16.gguf"
        return path if path.exists() else write_whole(path, lambda partial: write_gguf(directory, partial))
    form = FORMS[name]
    path = work / f"{model}-{form.suffix}"
    if path.exists():
        return path
    source = prepare(form.source, directory, work, python) if form.source else directory

    def write(partial: Path) -> None:
        subprocess.run(form.command(python, source, partial), check=True, capture_output=True, text=True)

    return write_whole(path, write)


def write_whole(path: Path, write: Callable[[Path], None]) -> Path:
    """Writes under another name first, so that what was broken off is not taken for the whole."""
    partial = path.with_name(f"{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    write(partial)
    return partial.rename(path)
