"""Fixtures shared by the tests of the processing layer."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer as BackendTokenizer

from phi4.processing.tokenizer import Tokenizer
from processing.phi_tokenizer import phi_tokenizer_json, write_json


@pytest.fixture(scope="session")
def tokenizer_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tokenizer")
    write_json(directory / "tokenizer.json", phi_tokenizer_json())
    write_json(directory / "tokenizer_config.json", {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"})
    return directory


@pytest.fixture(scope="session")
def tokenizer(tokenizer_directory: Path) -> Tokenizer:
    return Tokenizer.load(tokenizer_directory)


@pytest.fixture(scope="session")
def reference_tokenizer(tokenizer_directory: Path) -> BackendTokenizer:
    """The same file as the tokenizers library itself reads it."""
    return BackendTokenizer.from_file(str(tokenizer_directory / "tokenizer.json"))
