"""Comparing all documents: which blocks leave signatures of them, and which find the duplicates among those."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup.exact_dedup import ExactDedupConfig, ExactDedupSignature, ExactFindDedups
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupSignature,
)

from phi4.data.curate.curation import Duplicates, ExactDuplicates, NearDuplicatePictures, NearDuplicates
from phi4.data.curate.documents import content_digest, pictures
from phi4.data.curate.perceptual import perceptual_hash, similar_groups


def signature_blocks(step: Duplicates, folder: Path) -> list[Any]:
    """What follows a phase's block in the same task: it takes the documents and leaves signatures in the folder."""
    match step:
        case ExactDuplicates():
            return [ExactDedupSignature(str(folder / "signatures"), exact_config())]
        case NearDuplicates():
            return [
                without_media,
                MinhashDedupSignature(str(folder / "signatures"), config=minhash_config(step), language=step.language),
            ]
        case NearDuplicatePictures():
            return [PictureSignatures(folder / "signatures")]


def comparisons(step: Duplicates, folder: Path) -> list[tuple[PipelineStep, int]]:
    """Blocks that compare the signatures of all tasks, one after the other, and how many tasks each has."""
    signatures, pairs, remove = str(folder / "signatures"), str(folder / "pairs"), str(folder / "remove")
    match step:
        case ExactDuplicates():
            return [(ExactFindDedups(signatures, remove, config=exact_config()), 1)]
        case NearDuplicates():
            config = minhash_config(step)
            return [
                (MinhashDedupBuckets(signatures, pairs, config=config), step.buckets),
                (MinhashDedupCluster(pairs, remove, config=config), 1),
            ]
        case NearDuplicatePictures():
            return [(SimilarPictures(folder / "signatures", folder / "remove", step.max_distance), 1)]


def removed_places(folder: Path, task: int) -> frozenset[int]:
    """Which of a task's documents, counted from 0, are to go: whatever compared them wrote them as uint32."""
    # datatrove's exact comparison has a folder for each of its tasks, and MinHash's numbers have six digits.
    names = (f"00000/{task:05}.c4_dup", f"{task:06}.remove")
    paths = [folder / "remove" / name for name in names]
    return frozenset(place for path in paths if path.is_file() for place in np.fromfile(path, "<u4").tolist())


def without_media(documents: Iterator[Document], rank: int, world_size: int) -> Iterator[Document]:
    """Documents in their order; those with media have no text, so that equal captions are no duplicates."""
    for document in documents:
        yield Document("", document.id) if document.media else document


class PictureSignatures(PipelineStep):  # type: ignore[misc]
    """Writes the place and the perceptual hash of each document that has one picture."""

    type = "phi4"
    name = "picture signatures"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        """Takes all documents of a task."""
        rows = []
        for place, document in enumerate(data):
            found = pictures(document)
            hashed = perceptual_hash(found[0]) if len(found) == 1 else None
            if hashed is not None:
                rows.append((place, hashed))
        self.folder.mkdir(parents=True, exist_ok=True)
        np.array(rows, dtype=np.uint64).reshape(-1, 2).tofile(self.folder / f"{rank:05}.hashes")


class SimilarPictures(PipelineStep):  # type: ignore[misc]
    """Compares the hashes of all tasks; of each group of similar ones the first is kept."""

    type = "phi4"
    name = "similar pictures"

    def __init__(self, signatures: Path, remove: Path, max_distance: int) -> None:
        super().__init__()
        self.signatures = signatures
        self.remove = remove
        self.max_distance = max_distance

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Reads all signatures at once: 16 bytes for each picture."""
        paths = sorted(self.signatures.glob("*.hashes"))
        rows = [np.fromfile(path, dtype=np.uint64).reshape(-1, 2) for path in paths]
        tasks = np.concatenate([np.full(len(part), int(path.stem)) for path, part in zip(paths, rows, strict=True)])
        together = np.concatenate(rows)
        extra = similar_groups(together[:, 1], self.max_distance) != np.arange(len(together))
        self.remove.mkdir(parents=True, exist_ok=True)
        for task in np.unique(tasks[extra]):
            together[extra & (tasks == task), 0].astype("<u4").tofile(self.remove / f"{task:06}.remove")


def minhash_config(step: NearDuplicates) -> MinhashConfig:
    """How datatrove is told about a comparison of near duplicates."""
    return MinhashConfig(n_grams=step.ngram, num_buckets=step.buckets, hashes_per_bucket=step.hashes)


def exact_config() -> ExactDedupConfig:
    """How datatrove is told about a comparison of equal documents."""
    return ExactDedupConfig(content_getter=content_digest)
