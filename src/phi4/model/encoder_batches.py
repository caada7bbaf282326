"""Which media pass an encoder together."""

from collections.abc import Sequence


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
