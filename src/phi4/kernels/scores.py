"""What the choice of a token asks of the model's scores: which is the highest, and whether all are finite."""

import torch

from phi4.kernels.instructions import LEVELS, NATIVE, can_run, describe

# The kernel counts in 32 bits.
_WIDEST = 2**31 - 1


def best_scores(scores: torch.Tensor, level: str | None = None) -> tuple[list[int], list[bool]]:
    """Finds the highest score of each row.

    Args:
        scores: fp32 or bf16, [rows, width], with at least one score in a row.
        level: instructions to use, of `LEVELS`; None for the best, or for plain torch where there is no kernel.

    Returns:
        Of each row, the index of its first highest score, and whether all its scores are finite. Where they are not,
        the index is any of the row's. 0.0 and -0.0 are equal.

    Raises:
        ValueError: the tensor has another shape or type, or no kernel of the level takes it.
    """
    if scores.dim() != 2 or not 0 < scores.shape[1] <= _WIDEST or not scores.is_floating_point():
        raise ValueError(f"no kernel compares {describe(scores)}")
    if not can_run(scores):
        if level is not None:
            raise ValueError(f"no kernel of level {level} compares {describe(scores)} on {scores.device.type}")
        return best_in_torch(scores)
    places = torch.empty(scores.shape[0], dtype=torch.int64)
    finite = torch.empty(scores.shape[0], dtype=torch.bool)
    NATIVE.best_scores(
        level or LEVELS[0],
        torch.get_num_threads(),
        scores.data_ptr(),
        (places.data_ptr(), finite.data_ptr()),
        *scores.shape,
        scores.stride(0),
        scores.dtype == torch.bfloat16,
    )
    return places.tolist(), finite.tolist()


def best_in_torch(scores: torch.Tensor) -> tuple[list[int], list[bool]]:
    """What the kernel finds, in plain torch: the way where nothing was compiled, or on another device."""
    return scores.argmax(dim=-1).tolist(), torch.isfinite(scores).all(dim=-1).tolist()
