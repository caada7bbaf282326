"""SHA-256 of a base language model: the same for the same values, whichever layout stores them."""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from phi4.checkpoint.keymap import modality_of
from phi4.checkpoint.shards import tensor_bytes
from phi4.checkpoint.tensor_files import DTYPE_NAMES, StoredTensor
from phi4.config import ModelConfig
from phi4.errors import CheckpointError

_THREADS = 4


def base_digest(tensors: Mapping[str, StoredTensor]) -> str:
    """Hashes the decoder without its adapters, dtypes and shapes included, streaming the mapped files.

    The digest of a model is the SHA-256 of the digests of its tensors, in the order of their `Phi4Mini` names; each
    of those covers name, dtype, shape and the bytes on disk. Tensors are hashed in parallel: hashlib lets go of the
    interpreter while it works.

    Args:
        tensors: a checkpoint's tensors by our names; those of modalities are left out.

    Returns:
        64 hexadecimal digits.
    """
    base = {
        name.removeprefix("language."): tensor for name, tensor in tensors.items() if modality_of(name) == "language"
    }
    with ThreadPoolExecutor(_THREADS) as pool:
        digests = pool.map(lambda name: _tensor_digest(name, base[name]), sorted(base))
        return hashlib.sha256(b"".join(digests)).hexdigest()


def named_digest(config: ModelConfig, tensors: Mapping[str, StoredTensor]) -> str:
    """The digest by which packs name a base: for a quantised one, that of the model it was made from.

    Args:
        config: the checkpoint's configuration.
        tensors: its tensors by our names.
    """
    quantisation = config.decoder.quantisation
    return base_digest(tensors) if quantisation is None else quantisation.base_digest


def codes_digest(tensors: Mapping[str, StoredTensor]) -> str:
    """Hashes the quantised weights of the decoder as `base_digest` does, without the norms, whose type may change."""
    return base_digest({name: part for name, part in tensors.items() if name.endswith((".codes", ".steps", ".scales"))})


def check_codes(config: ModelConfig, tensors: Mapping[str, StoredTensor], where: str) -> None:
    """Makes sure that a quantised language model is the one that was written, if its digest was noted then.

    Raises:
        CheckpointError: it is not.
    """
    noted = config.decoder.quantisation.codes_digest if config.decoder.quantisation is not None else None
    if noted is not None and (found := codes_digest(tensors)) != noted:
        raise CheckpointError(
            f"the quantised weights of {where} have digest {found}, but {noted} when they were written: they are "
            "damaged; quantise the model again, or copy it again"
        )


def _tensor_digest(name: str, tensor: StoredTensor) -> bytes:
    digest = hashlib.sha256(f"{name} {DTYPE_NAMES[tensor.dtype]} {list(tensor.shape)}\n".encode())
    digest.update(tensor_bytes(tensor.read()))
    return digest.digest()
