"""Pictures with captions and sounds with transcripts, as the project's records."""

from dataclasses import replace

from phi4.agreement.captions import caption_agreement
from phi4.agreement.transcripts import transcript_agreement
from phi4.data.curate import media, text
from phi4.data.curate.curation import BatchFilter, Collection, Curation, ExactDuplicates, NearDuplicatePictures
from phi4.data.curate.readers import Records


def captions() -> Curation:
    """English captions of pictures that differ; not for collections that ask several questions about one picture."""
    return Curation(
        collections=(Collection("captions", "**/*.jsonl", Records()),),
        steps=(
            media.decodable(),
            media.picture_size(),
            text.repair(),
            media.answer_length(),
            text.answer_language("en", min_confidence=0.3),
            NearDuplicatePictures(),
            text.mask_private(),
        ),
    )


def transcripts() -> Curation:
    """English speech of half a second to forty, neither silent nor clipped, said at a human pace."""
    return Curation(
        collections=(Collection("transcripts", "**/*.jsonl", Records()),),
        steps=(
            media.decodable(),
            media.duration(),
            media.silence(),
            media.clipping(),
            media.speaking_rate(),
            text.repair(),
            text.answer_language("en", min_confidence=0.3),
            ExactDuplicates(),
            text.mask_private(),
        ),
    )


def agreeing_captions() -> Curation:
    """As `captions`, and nano finds that each agrees with its picture; it knows drawings and shapes."""
    return _before_the_last(captions(), caption_agreement())


def agreeing_transcripts() -> Curation:
    """As `transcripts`, and each is what nano hears, give or take half the words."""
    return _before_the_last(transcripts(), transcript_agreement())


def _before_the_last(curation: Curation, step: BatchFilter) -> Curation:
    """Puts a step before the one that masks private data, which nobody masked in the media."""
    return replace(curation, steps=(*curation.steps[:-1], step, curation.steps[-1]))
