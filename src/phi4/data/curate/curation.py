"""What a curation recipe says: which collections are read, which steps they pass, how much of each is taken."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from datatrove.data import Document

from phi4.data.curate.readers import Reader
from phi4.data.record import Split
from phi4.errors import ConfigError
from phi4.recipe_file import call, functions_returning


@dataclass(frozen=True)
class Collection:
    """Some of the raw files, with what holds for all of them.

    Attributes:
        name: of the collection; ids of records begin with it, and a mixture goes by it.
        files: pattern below the raw folder, such as "web/*.jsonl.gz".
        reader: how a file is cut into documents.
        source: where a document was taken from, unless the document says so itself. Default: the name.
        licence: unless the document says so itself. A document without any is left out, and counted.
        split: what the records may be used for.
        task: what they teach, in a word.
    """

    name: str
    files: str
    reader: Reader
    source: str = ""
    licence: str = ""
    split: Split = "train"
    task: str = "text"

    def __post_init__(self) -> None:
        parts = PurePath(self.files).parts
        if not parts or ".." in parts or PurePath(self.files).is_absolute():
            raise ConfigError(
                f"the files of the collection {self.name!r} are {self.files!r}; name them by a pattern below the raw "
                'folder, such as "web/*.jsonl.gz"'
            )


@dataclass(frozen=True)
class Reason:
    """Why a document is left out, where there is more to say of it than what is counted.

    Attributes:
        text: in a few words, without values, so that equal ones can be counted.
        detail: of this document, such as a score.
    """

    text: str
    detail: str


@dataclass(frozen=True)
class Filter:
    """A step that leaves documents out.

    Attributes:
        name: in the report.
        reason: None keeps a document; a few words say why it is left out.
        files: that the step reads besides; an interrupted curation goes on only with the same contents.
    """

    name: str
    reason: Callable[[Document], str | Reason | None]
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class BatchFilter:
    """A step that leaves documents out, and looks at several at once: for models.

    Attributes:
        name: in the report.
        reasons: as `Filter.reason`, for each of some documents.
        size: documents at once, at most; fewer where they are long.
        files: as of `Filter`.
    """

    name: str
    reasons: Callable[[Sequence[Document]], Sequence[str | Reason | None]]
    size: int = 16
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Edit:
    """A step that changes text: a whole document, or each text of a conversation.

    Attributes:
        name: in the report.
        text: from the old text to the new one.
    """

    name: str
    text: Callable[[str], str]


@dataclass(frozen=True)
class ExactDuplicates:
    """A step that keeps one of the documents that are equal in text and media."""

    name: str = "exact duplicates"


@dataclass(frozen=True)
class NearDuplicates:
    """A step that keeps one of the texts that share most of their n-grams of words (MinHash). Media are let through.

    Two texts whose n-grams overlap to the share s meet with the probability 1 - (1 - s ** hashes) ** buckets: 0.92 at
    0.8, 0.23 at 0.6 with the numbers here.

    Attributes:
        ngram: words; a text with fewer has no near duplicates.
        buckets: how many times two texts may meet.
        hashes: how many smallest hashes must agree for that.
        language: three-letter code (ISO 639-3) of the rules by which words are told apart.
        name: in the report.
    """

    ngram: int = 5
    buckets: int = 14
    hashes: int = 8
    language: str = "eng"
    name: str = "near duplicates"


@dataclass(frozen=True)
class NearDuplicatePictures:
    """A step that keeps one of the documents whose pictures look the same, by a hash of 64 bits of each.

    Attributes:
        max_distance: bits in which the hashes of two equal pictures may differ, at most 7.
        name: in the report.
    """

    max_distance: int = 4
    name: str = "near-duplicate pictures"

    def __post_init__(self) -> None:
        if not 0 <= self.max_distance <= 7:
            raise ConfigError(f"max_distance is {self.max_distance}; hashes of 64 bits are compared at 0 to 7")


DocumentStep = Filter | BatchFilter | Edit
CurationStep = DocumentStep | ExactDuplicates | NearDuplicates | NearDuplicatePictures
Duplicates = ExactDuplicates | NearDuplicates | NearDuplicatePictures


def four_bytes_each(text: str) -> int:
    """A guess at the number of tokens without a tokenizer: one for each four bytes of UTF-8."""
    return -(-len(text.encode()) // 4)


@dataclass(frozen=True)
class Curation:
    """From raw files to one data set.

    Attributes:
        collections: what is read, by different names.
        steps: in their order.
        mixture: share of the tokens of each collection; without, everything is taken that is there.
        budget: tokens of the data set at most; None for as many as the mixture allows.
        num_tokens: counts the tokens of a text for mixture and budget.
    """

    collections: tuple[Collection, ...]
    steps: tuple[CurationStep, ...]
    mixture: Mapping[str, float] = field(default_factory=dict)
    budget: int | None = None
    num_tokens: Callable[[str], int] = four_bytes_each

    def __post_init__(self) -> None:
        names = [collection.name for collection in self.collections]
        if not names or len(set(names)) < len(names) or any(not name or "/" in name for name in names):
            raise ConfigError(f"the collections are called {names}; each needs a name of its own, without a slash")
        if self.mixture and (set(self.mixture) != set(names) or min(self.mixture.values()) <= 0):
            raise ConfigError(f"the mixture is {dict(self.mixture)}; it must give each of {names} a share above 0")
        if self.budget is not None and self.budget < 1:
            raise ConfigError(f"the budget is {self.budget} tokens; it must be at least 1")
        steps = [step.name for step in self.steps]
        if len(set(steps)) < len(steps):
            raise ConfigError(f"the steps are called {steps}; each needs a name of its own")


def load_curation(reference: str) -> Curation:
    """Loads a curation.

    Args:
        reference: file and function, such as "recipes/curation/text.py:english".

    Raises:
        ConfigError: there is no such file or function, it fails, or what it returns contradicts itself.
    """
    path, _, name = reference.partition(":")
    found = functions_returning(Curation, Path(path), "recipes/curation/text.py:english")
    if name not in found:
        raise ConfigError(f"{path} has no curation {name!r}; it has {', '.join(found) or 'none'}")
    return call(Curation, Path(path), found[name])
