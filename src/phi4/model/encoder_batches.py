"""Which media pass an encoder together."""

from collections.abc import Sequence

import torch

from phi4.kernels.encoder import can_encode


def rounds_with_company(weight: torch.Tensor) -> bool:
    """Whether the last bits of a medium's features depend on what else passes: stock products do so on a CPU.

    Training does not mind, nor does a graphics card, which rounds with the number of rows everywhere.

    Args:
        weight: any of the encoder.
    """
    return weight.is_cpu and not torch.is_grad_enabled() and not can_encode(weight)


def split_batches(sizes: Sequence[int], max_size: int) -> list[list[int]]:
    """Divides media into batches of like sizes, which pad each other least.

    Args:
        sizes: of the media, in whatever the encoder's activations grow with.
        max_size: what a batch may hold, every medium counted as large as its largest. A medium above it is alone.

    Returns:
        The places of the media of each batch.
    """
    batches: list[list[int]] = []
    for place in sorted(range(len(sizes)), key=lambda place: sizes[place]):
        if batches and (len(batches[-1]) + 1) * sizes[place] <= max_size:
            batches[-1].append(place)
        else:
            batches.append([place])
    return batches
