"""How well a model predicts running text."""

from phi4.eval.metrics import BITS_PER_BYTE, WORD_PERPLEXITY
from phi4.eval.rows import SourceRow
from phi4.eval.task import Item, Roll, Rows, Task


def _document(row: SourceRow) -> Item:
    text = row.text("text", "page")
    if not text.strip():
        raise row.error("the text is empty")
    return Item(f"{row.number}", choices=(text,))


TASKS = (
    Task(
        name="perplexity",
        ask=Roll(),
        metrics=(WORD_PERPLEXITY, BITS_PER_BYTE),
        rows=Rows(
            "text (or page, as WikiText by document has it)",
            _document,
            "EleutherAI/wikitext_document_level",
            "wikitext-2-raw-v1/*test*",
        ),
    ),
)
