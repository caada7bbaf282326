"""Finds models by name: the embedded default, a directory, or a repository of the Hugging Face Hub."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

# The base of what the network client raises; which client that is depends on the version of huggingface_hub.
from huggingface_hub.errors import HTTPError as ClientError  # type: ignore[attr-defined]

from phi4.checkpoint import nano
from phi4.errors import CheckpointError

NOTICES = [name + ending for name in ("LICENSE", "NOTICE") for ending in ("", ".md", ".txt")]
# Weights as safetensors and what is text. Never pickles, never code.
ALLOWED_FILES = ["*.json", "*.safetensors", "*.jinja", "merges.txt", *NOTICES]


def pull_from_hub(model: str) -> Path:
    """Downloads a model into the Hub's own cache, or only checks it if it is there already.

    Args:
        model: "OWNER/NAME" for the main branch, or "OWNER/NAME@REVISION" for a branch, tag or commit.

    Returns:
        The directory of that revision.

    Raises:
        CheckpointError: the repository or revision does not exist, needs a login, or cannot be reached.
    """
    repository, revision = _split_revision(model)
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=ALLOWED_FILES))
    except GatedRepoError as error:
        raise CheckpointError(f"{repository} is gated: accept its terms on the Hub and run `hf auth login`") from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{repository} has no revision {revision!r}") from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(f"{repository} is not on the Hub, or is private: check the name or log in") from error
    except HFValidationError as error:
        raise CheckpointError(f"{repository!r} is not a repository name; it must look like OWNER/NAME") from error
    except (EntryNotFoundError, ClientError, OSError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise CheckpointError(
            f"{repository} cannot be downloaded: {reason}; check the network and try again"
        ) from error


def shipped_packs(model: str) -> tuple[Path, ...]:
    """The packs that come with a model unless others are named: those of "nano", and none of any other."""
    return nano.PACKS if model == nano.NAME else ()


def resolve(model: str) -> Path:
    """Finds the directory of a model, downloading nothing but the embedded default.

    Args:
        model: "nano", a directory, or the OWNER/NAME of a repository that was pulled before, with @REVISION behind it
            if that was another than the main branch.

    Raises:
        CheckpointError: there is no such model on this machine; the message says how to get it.
    """
    if model == nano.NAME:
        return nano.pull_nano()
    if model and Path(model).is_dir():
        return Path(model)
    if Path(model).is_file():
        raise CheckpointError(
            f"{model} is a file; a pack goes onto a base with --pack, a GGUF file is imported by `phi4 convert`"
        )
    repository, revision = _split_revision(model)
    if repository.count("/") != 1 or model.startswith((".", "/")):
        raise CheckpointError(
            f"there is no directory {model!r}; "
            "a model is 'nano', a directory, or OWNER/NAME or OWNER/NAME@REVISION pulled from the Hub"
        )
    try:
        return Path(
            snapshot_download(repository, revision=revision, allow_patterns=ALLOWED_FILES, local_files_only=True)
        )
    except (EntryNotFoundError, HFValidationError, OSError) as error:
        raise CheckpointError(
            f"{model} is neither a directory nor a pulled model; run `phi4 pull {model}` to download it"
        ) from error


def _split_revision(model: str) -> tuple[str, str | None]:
    repository, _, revision = model.partition("@")
    return repository, revision or None
