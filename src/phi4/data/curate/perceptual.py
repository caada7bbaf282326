"""Hashes of pictures that stay close when a picture is scaled, compressed again or a little brighter."""

from itertools import pairwise

import numpy as np
import PIL.Image

from phi4.errors import InputError
from phi4.processing.image_file import load_image

SIDE = 8
HASH_BITS = SIDE * SIDE
# Of 255 steps from black to white.
MIN_CONTRAST = 8


def perceptual_hash(content: bytes) -> int | None:
    """64 bits that say where a picture, shrunk to 8 rows of 9 grey pixels, becomes brighter to the right.

    Args:
        content: of the picture's file.

    Returns:
        The hash, or None for what is no picture, or one so even that the bits would be noise.
    """
    try:
        grey = load_image(content).convert("L").resize((SIDE + 1, SIDE), PIL.Image.Resampling.BOX)
    except InputError:
        return None
    pixels = np.asarray(grey, dtype=np.int16)
    if int(pixels.max()) - int(pixels.min()) < MIN_CONTRAST:
        return None
    return int.from_bytes(np.packbits(pixels[:, 1:] > pixels[:, :-1]).tobytes())


def similar_groups(hashes: np.ndarray, max_distance: int) -> np.ndarray:
    """Groups hashes that a chain of small steps connects.

    Of hashes that differ in at most d bits, one of d + 1 pieces is the same: only those are compared.

    Args:
        hashes: uint64, [pictures].
        max_distance: bits in which neighbours of a chain may differ.

    Returns:
        int64, [pictures]: for each the first picture of its group.
    """
    first = np.arange(len(hashes))

    def root(place: int) -> int:
        while first[place] != place:
            first[place] = first[first[place]]
            place = int(first[place])
        return place

    edges = np.linspace(0, HASH_BITS, max_distance + 2).astype(int)
    for low, high in pairwise(edges):
        pieces = (hashes >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(pieces, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(pieces[order])) + 1):
            for place in range(len(group) - 1):
                others = group[place + 1 :]
                near = np.bitwise_count(hashes[others] ^ hashes[group[place]]) <= max_distance
                for other in others[near].tolist():
                    one, two = sorted((root(int(group[place])), root(other)))
                    first[two] = one
    return np.array([root(place) for place in range(len(hashes))], dtype=np.int64)
