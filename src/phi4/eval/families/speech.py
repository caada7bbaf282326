"""Transcription and translation of speech: LibriSpeech, FLEURS, Common Voice, CoVoST 2."""

from functools import partial

from phi4.assistant import TRANSCRIBE_PROMPT
from phi4.engine.sampling import Sampling
from phi4.eval.language_metrics import CER, CHRF, UNSPACED_CER, WER, bleu
from phi4.eval.rows import SourceRow
from phi4.eval.task import Generate, Item, Rows, Task
from phi4.processing.messages import user_message

SPEECH = frozenset({"speech"})
TRANSCRIBE = Generate(Sampling(max_tokens=256))
# Directions of CoVoST 2 that the report gives results for, and sacrebleu's tokenizer for the target.
INTO_ENGLISH = ("de", "es", "fr", "it", "ja", "pt", "zh-CN")
OUT_OF_ENGLISH = {"de": ("German", "13a"), "ja": ("Japanese", "char"), "zh-CN": ("Chinese", "zh")}
FLEURS_LANGUAGES = ("cmn_hans_cn", "de_de", "en_us", "es_419", "fr_fr", "it_it", "ja_jp", "pt_br")
COMMON_VOICE_LANGUAGES = ("de", "en", "es", "fr", "it", "ja", "pt", "zh-CN")
# Tables of FLEURS have no header.
FLEURS_COLUMNS = ("id", "path", "raw_transcription", "transcription", "characters", "num_samples", "gender")


def sound_of(row: SourceRow) -> bytes:
    """The sound of a row: embedded, or a file beside the table, in `clips` as Common Voice has it or in the split's."""
    if "audio" in row.fields:
        return row.medium("audio")
    name = row.text("path", "file")
    return row.read_file(name, f"clips/{name}", f"{row.file.stem}/{name}", f"audio/{row.file.stem}/{name}")


def _transcript(row: SourceRow) -> Item:
    question = user_message(TRANSCRIBE_PROMPT, sounds=[sound_of(row)])
    text = row.text("text", "sentence", "transcription", "raw_transcription")
    return Item(f"{row.file.stem} {row.number}", (question,), references=(text,))


def _translate(language: str, row: SourceRow) -> Item:
    question = user_message(f"Translate the audio to {language}.", sounds=[sound_of(row)])
    return Item(f"{row.file.stem} {row.number}", (question,), references=(row.text("translation"),))


def _recognition(name: str, repository: str | None, files: str, columns: tuple[str, ...] = ()) -> Task:
    """Languages without spaces are scored by character first."""
    metrics = (UNSPACED_CER, WER) if name.endswith(("zh-CN", "ja", "cmn_hans_cn", "ja_jp")) else (WER, CER)
    fields = "audio, or the path of a sound; and text, sentence or transcription"
    return Task(name, TRANSCRIBE, metrics, Rows(fields, _transcript, repository, files, columns), SPEECH)


def _translation(pair: str, language: str, tokenize: str) -> Task:
    rows = Rows("path of a sound in clips, and translation", partial(_translate, language), None, f"*{pair}*test.tsv")
    return Task(f"covost_{pair}", TRANSCRIBE, (bleu(tokenize), CHRF), rows, SPEECH)


TASKS = (
    *(
        _recognition(f"librispeech_{name}", "openslr/librispeech_asr", f"{name}/test*|test-{name}/*|*/test-{name}/*")
        for name in ("clean", "other")
    ),
    # These two keep sounds in archives on the Hub: unpacked, with the table beside them, they are read from a folder.
    *(_recognition(f"fleurs_{name}", None, "*test.tsv", FLEURS_COLUMNS) for name in FLEURS_LANGUAGES),
    *(_recognition(f"commonvoice_{name}", None, "*test.tsv") for name in COMMON_VOICE_LANGUAGES),
    *(_translation(f"{language}_en", "English", "13a") for language in INTO_ENGLISH),
    *(_translation(f"en_{language}", *named) for language, named in OUT_OF_ENGLISH.items()),
)
