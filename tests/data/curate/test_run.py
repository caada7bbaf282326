"""A curation accounts for every document, gives the same bytes however it is run, and can be interrupted."""

import gzip
import json
import shutil
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from data.curate.recipes import HEAD, PROSE, removed, run, write_json_lines
from data.samples import media_record
from phi4.data.curate import block
from phi4.data.curate.curation import Collection
from phi4.data.curate.readers import JsonLines
from phi4.data.record import write_records
from phi4.data.shards import ShardedRecords
from phi4.errors import ConfigError, DataError

GERMAN = "Das ist ein deutscher Satz, den niemand braucht, der nur englische Sätze lesen will und sonst nichts."
EVERYTHING = """Curation(
    (Collection("prose", "*.jsonl", JsonLines(), licence="CC0-1.0"),),
    (text.repair(), text.language("en"), ExactDuplicates(), text.gopher_quality(min_doc_words=5),
     NearDuplicates(), text.mask_private()))"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three raw files: prose, one text twice, one nearly so, German, an address."""
    monkeypatch.chdir(tmp_path)
    near = PROSE[1].replace("summer", "spring")
    write_json_lines(tmp_path / "raw/0.jsonl", [*PROSE[:3], GERMAN])
    write_json_lines(tmp_path / "raw/1.jsonl", [PROSE[0], near, PROSE[3]], licence="MIT", source="the village")
    write_json_lines(tmp_path / "raw/2.jsonl", [*PROSE[4:], "Please write to the keeper at keeper@lighthouse.org now."])
    return tmp_path


def shard_bytes(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def test_each_document_is_in_the_shards_or_in_the_list_of_what_was_left_out(folder: Path) -> None:
    result = run(folder, EVERYTHING)
    records = ShardedRecords.open(result.shards)
    left_out = removed(result)
    assert {record.id for record in records} | {name for name, _, _ in left_out} == {
        f"prose/{file}.jsonl#{line}" for file, lines in ((0, 4), (1, 3), (2, 3)) for line in range(1, lines + 1)
    }
    assert len(records) + len(left_out) == 10
    assert [(step, reason) for _, step, reason in left_out] == [
        ("language", "language de"),
        ("exact duplicates", "another one is kept"),
        ("near duplicates", "another one is kept"),
    ]
    assert records[-1].answer == "Please write to the keeper at email@example.com now."


def test_provenance_and_licence_travel_with_each_record(folder: Path) -> None:
    records = ShardedRecords.open(run(folder, EVERYTHING).shards)
    found = {record.answer: (record.source, record.licence, record.split, record.task) for record in records}
    assert found[PROSE[3]] == ("the village", "MIT", "train", "text")
    assert found[PROSE[2]] == ("prose", "CC0-1.0", "train", "text")


def test_the_number_of_workers_changes_no_byte(folder: Path) -> None:
    alone, shared = run(folder, EVERYTHING), run(folder, EVERYTHING, out="shared", workers=2)
    assert shard_bytes(alone.shards) == shard_bytes(shared.shards)
    assert removed(alone) == removed(shared)


def test_one_long_file_is_shared_among_workers_and_the_bytes_stay_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phi4.data.curate.lines.PART_BYTES", 300)
    body = EVERYTHING.replace("*.jsonl", "0.jsonl")
    write_json_lines(folder / "raw/0.jsonl", [*PROSE, PROSE[0], GERMAN])
    alone, shared = run(folder, body), run(folder, body, out="shared", workers=2)
    assert shard_bytes(alone.shards) == shard_bytes(shared.shards)
    assert removed(alone) == removed(shared)
    assert len(ShardedRecords.open(alone.shards)) == 6


def test_an_interrupted_run_does_not_repeat_finished_tasks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(folder, EVERYTHING)
    seen: list[str] = []
    read_files = block.read_files

    def read(files, *rest):  # type: ignore[no-untyped-def]
        seen.extend(file.path for file in files)
        if seen == ["0.jsonl", "1.jsonl"]:
            raise KeyboardInterrupt
        return read_files(files, *rest)

    monkeypatch.setattr(block, "read_files", read)
    with pytest.raises(KeyboardInterrupt):
        run(folder, EVERYTHING, out="again")
    result = run(folder, EVERYTHING, out="again")
    assert seen == ["0.jsonl", "1.jsonl", "1.jsonl", "2.jsonl"]
    assert shard_bytes(result.shards) == shard_bytes(whole.shards)
    assert removed(result) == removed(whole)


def test_a_run_does_not_go_on_with_another_recipe(folder: Path) -> None:
    run(folder, EVERYTHING)
    run(folder, EVERYTHING)
    with (folder / "recipe.py").open("a") as file:
        file.write("# changed\n")
    with pytest.raises(ConfigError, match="belongs to another curation"):
        run(folder, EVERYTHING)


@pytest.mark.parametrize("changed", ["evaluation.jsonl", "rules.py"])
def test_a_run_does_not_go_on_with_another_file_that_the_recipe_reads(folder: Path, changed: str) -> None:
    write_json_lines(folder / "evaluation.jsonl", [PROSE[0]])
    (folder / "rules.py").write_text("NUM_WORDS = 5\n")
    imports = (
        "from pathlib import Path",
        "from phi4.data.curate.decontaminate import *",
        "from rules import NUM_WORDS",
    )
    leaks = "decontaminate({'leaks': Path('evaluation.jsonl')})"
    body = EVERYTHING.replace("=5", "=NUM_WORDS").replace("text.repair()", leaks)
    (folder / "recipe.py").write_text("\n".join(imports) + HEAD + f"    return {body}\n")
    run(folder, body)
    run(folder, body)
    with (folder / changed).open("a") as file:
        file.write('"another line"\n')
    with pytest.raises(ConfigError, match=f"belongs to another curation: {changed} changed"):
        run(folder, body)


def test_where_nothing_is_left_the_report_says_why(folder: Path) -> None:
    body = 'Curation((Collection("prose", "0.jsonl", JsonLines()),), ())'
    with pytest.raises(DataError, match=r"no records to write.*report\.md"):
        run(folder, body)
    assert "| read | no licence | 4 | 100.00 % |" in (folder / "out/report.md").read_text()


def test_bad_input_of_every_kind_is_counted_and_the_rest_kept(folder: Path) -> None:
    raw, german = folder / "raw", "Die Brücke über den Fluß führt zum Schloß der Königin, wo die Vögel Lieder hören."
    lines = b"".join(json.dumps({"text": f"{number}", "licence": "MIT"}).encode() + b"\n" for number in range(9000))
    (raw / "cut.jsonl.gz").write_bytes(gzip.compress(lines)[:-100])
    (raw / "latin.jsonl").write_bytes(f'{{"licence": "MIT", "text": "{german}"}}\n'.encode("latin-1"))
    (raw / "none.jsonl").touch()
    (raw / "broken.parquet").write_bytes(b"PAR1")
    write_records(raw / "records/a.jsonl", [media_record(1), media_record(2)])
    medium = next((raw / "records/media").rglob("*.png"))
    (raw / "records/empty.png").touch()
    path = raw / "records/a.jsonl"
    path.write_text(path.read_text().replace(medium.relative_to(path.parent).as_posix(), "empty.png"))
    result = run(
        folder,
        """Curation((Collection("text", "*.jsonl*", JsonLines()), Collection("rows", "*.parquet", Parquet()),
        Collection("records", "records/*.jsonl", Records())), ())""",
    )
    assert Counter(reason for _, _, reason in removed(result)) == {
        "no licence": 7,
        "broken archive": 1,
        "an empty file": 1,
        "broken Parquet file": 1,
        "a medium of zero bytes": 1,
    }
    report, kept = result.report.read_text(), len(ShardedRecords.open(result.shards))
    assert kept > 5
    assert f"| read | {kept + 11:,} | {kept:,} | 11 |" in report
    assert "| read | broken archive | 1 |" in report
    assert "| read | read as " in report


def test_a_collection_without_files_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="has no files"):
        run(folder, 'Curation((Collection("prose", "*.parquet", Parquet()),), ())')


@pytest.mark.parametrize("pattern", ["", "/raw/*.jsonl", "../raw/*.jsonl"])
def test_files_are_named_below_the_raw_folder(pattern: str) -> None:
    with pytest.raises(ConfigError, match="by a pattern below the raw folder"):
        Collection("prose", pattern, JsonLines())


def test_the_output_does_not_become_input(folder: Path) -> None:
    with pytest.raises(ConfigError, match="lies in the folder of the raw files"):
        run(folder, EVERYTHING, out="raw/out")
    assert not (folder / "raw/out").exists()


def test_a_step_that_fails_names_its_document_and_the_run_can_go_on(folder: Path) -> None:
    """What failed is a reader of another field; the file that it lacks is not one that a curation is made of."""
    body = 'Filter("of its own", lambda document: None if (Path.cwd() / "there").exists() else document.nothing)'
    (folder / "recipe.py").write_text(
        f"from pathlib import Path\n{HEAD}    return {EVERYTHING.replace('text.repair()', body)}\n"
    )
    with pytest.raises(DataError, match=r"'of its own' failed on prose/0\.jsonl#1: AttributeError: .*'nothing'"):
        run(folder, "")
    (folder / "there").touch()
    assert len(ShardedRecords.open(run(folder, "").shards)) == 7


def test_what_no_file_can_hold_is_left_out(folder: Path) -> None:
    bad = ({"text": "\ud800"}, {"text": PROSE[0], "source": "\ud800"}, {"text": PROSE[1], "licence": "\udfff"})
    (folder / "raw/bad.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bad))
    result = run(folder, EVERYTHING.replace("*.jsonl", "[0b]*.jsonl"))
    reason = "text that is no valid Unicode"
    assert [(name, why) for name, step, why in removed(result) if step == "read"] == [
        (f"prose/bad.jsonl#{line}", reason) for line in (1, 2, 3)
    ]


def test_a_document_stands_in_one_collection(folder: Path) -> None:
    body = 'Curation((Collection("a", "*.jsonl", JsonLines()), Collection("b", "0*", JsonLines())), ())'
    with pytest.raises(DataError, match="two collections"):
        run(folder, body)


def test_the_report_has_a_plot_and_says_how_long_each_step_took(folder: Path) -> None:
    report = run(folder, EVERYTHING).report
    lines = report.read_text().splitlines()
    assert f"![Documents left after each step]({report.stem}.svg)" in lines
    plot = ElementTree.parse(report.with_suffix(".svg"))
    names = [text.text for text in plot.findall(".//{*}text")]
    steps = ("read", "Unicode repair", "language", "exact duplicates", "Gopher quality", "near duplicates")
    assert names[::2] == [*steps, "private data", "mixture and budget"]
    assert names[1::2] == ["10", "10", "9", "8", "8", "7", "7", "7"]
    assert "| step | in | out | left out | changed | MB in | MB out | s | documents/s | MB/s |" in lines
    (language,) = (line.split(" | ") for line in lines if line.startswith("| language | 10 |"))
    assert language[1:4] == ["10", "9", "1"]
    assert float(language[8].replace(",", "")) > 0


def test_the_report_stands_alone_and_shows_what_was_left_out(folder: Path) -> None:
    result = run(folder, EVERYTHING)
    page = result.report.with_suffix(".html").read_text()
    assert "<svg" in page
    assert "http" not in page
    assert GERMAN in page
    assert GERMAN in result.report.read_text()


def test_a_mixture_takes_shares_of_a_budget(folder: Path) -> None:
    write_json_lines(folder / "raw/many.json", [f"{number:03}" for number in range(400)])
    body = """Curation(
        (Collection("prose", "*.jsonl", JsonLines(), licence="CC0-1.0"),
         Collection("numbers", "*.json", JsonLines(), licence="CC0-1.0")),
        (), {"prose": 1, "numbers": 3}, budget=120)"""
    result = run(folder, body)
    taken = [record.id.partition("/")[0] for record in ShardedRecords.open(result.shards)]
    assert taken.count("numbers") == 90
    assert taken.count("prose") == 1
    report = result.report.read_text()
    assert "| numbers | 75.0 % |" in report
    assert json.loads((result.shards / "manifest.json").read_text())["records"] == 91


def test_files_of_which_nothing_is_left_disturb_no_comparison(folder: Path) -> None:
    (folder / "raw/3.jsonl").touch()
    (folder / "raw/4.jsonl").write_text("{\n")
    result = run(folder, EVERYTHING.replace("text.mask_private()", "NearDuplicatePictures()"))
    assert len(ShardedRecords.open(result.shards)) == 7
    assert ("read", "an empty file") in {(step, reason) for _, step, reason in removed(result)}
    only = 'Curation((Collection("none", "4.jsonl", JsonLines()),), (ExactDuplicates(), NearDuplicates()))'
    (folder / "recipe.py").unlink()
    with pytest.raises(DataError, match="no records to write"):
        run(folder, only, out="none")


def test_a_run_that_is_stopped_while_it_tidies_up_is_complete(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    delete = shutil.rmtree

    def stopped(path: Path, **options: bool) -> None:
        if options or not (Path(path) / "phase-00").exists():
            return delete(path, **options)
        delete(Path(path) / "phase-00" / "removed")
        delete(Path(path) / "phase-02" / "documents")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(folder, EVERYTHING)
    result, whole = run(folder, EVERYTHING), run(folder, EVERYTHING, out="whole")
    assert shard_bytes(result.shards) == shard_bytes(whole.shards)
    assert removed(result) == removed(whole)
    assert {path.name for path in (folder / "out").iterdir()} == {path.name for path in (folder / "whole").iterdir()}
