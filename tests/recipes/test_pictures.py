import json
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import pytest

from phi4.data.record import Record
from phi4.data.shards import ShardedRecords, write_shards
from phi4.processing.image_file import load_image
from phi4.processing.messages import Image, Message, Sound
from recipes.nano import emoji_drawings, further_drawings
from recipes.nano.augment_pictures import EMOJI, augment, bend, change, change_strokes, erase
from recipes.nano.build import build
from recipes.nano.easy_vqa import Picture, all_pictures, easy_vqa_records, read_pictures, spoken_records
from recipes.nano.emoji import TEST_QUESTION, emoji_many_records, emoji_records
from recipes.nano.emoji_drawings import (
    HELD_OUT_STYLES,
    Drawing,
    Emoji,
    IconSet,
    match_drawings,
    read_emoji,
    read_icon_set,
)
from recipes.nano.packages import FONTS, STYLES
from recipes.nano.text_lines import (
    HEIGHT_PX,
    MAX_WIDTH_PX,
    Face,
    all_faces,
    all_words,
    font_family,
    text_line_records,
    word_split,
)
from recipes.nano_joint import augment_briefly

KEYS = [f"1f6{number:02x}" for number in range(64)]
WORDS = ["apple", "bridge", "cloud", "door", "early", "fog", "garden", "hat", "island", "jar", "kite", "lamp", "moon"]


def svg(number: int) -> str:
    square = f'<rect x="{number % 8}" y="{number // 8}" width="3" height="3" fill="red"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 12 12">{square}</svg>'


def icon_set(icons: dict[str, int], characters: dict[str, str]) -> IconSet:
    return IconSet({name: svg(number) for name, number in icons.items()}, characters, {})


@pytest.fixture(scope="module")
def emoji() -> list[Emoji]:
    return [Emoji(points, f"Thing {number}", (), has_name=True) for number, points in enumerate(KEYS)]


@pytest.fixture(scope="module")
def drawings(emoji: list[Emoji]) -> list[Drawing]:
    icons = {f"thing-{number}": number for number in range(len(emoji))}
    characters = {member.code_points: f"thing-{number}" for number, member in enumerate(emoji)}
    return match_drawings({style: icon_set(icons, characters) for style in STYLES}, emoji)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Picture]:
    root = tmp_path_factory.mktemp("easy_vqa")
    for folder in ("train", "test"):
        (root / folder / "images").mkdir(parents=True)
        for number in range(80):
            picture = PIL.Image.new("RGB", (64, 64), (240, 250, 245))
            # At the edge, where a careless shift would lose it.
            PIL.ImageDraw.Draw(picture).rectangle((56, 20, 63, 27), fill=(0, 128, 128))
            picture.save(root / folder / f"images/{number}.png")
        asked = [("is there a circle?", "no"), ("what color is the shape?", "teal"), ("is it red?", "no")]
        questions = [(question, answer, number) for number in range(80) for question, answer in asked]
        (root / folder / "questions.json").write_text(json.dumps(questions))
    return [*read_pictures(root / "train"), *read_pictures(root / "test")]


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> list[Face]:
    root = tmp_path_factory.mktemp("fonts")
    font = PIL.ImageFont.load_default(20)
    assert isinstance(font, PIL.ImageFont.FreeTypeFont)
    made = []
    for name, package in (("Lato-Bold", "lato"), ("Inter-Bold", "inter"), ("OpenSans-Light", "open-sans")):
        file = root / f"{name}.ttf"
        file.write_bytes(font.font_bytes)
        made.append(Face(file, font_family(name), FONTS[package]))
    return made


@pytest.fixture(scope="module")
def lines(faces: list[Face]) -> list[Record]:
    words = [f"{first}{second}" for first in WORDS for second in WORDS]
    return list(text_line_records(faces, words, {"train": 30, "valid": 5, "test": 20}))


def picture_of(record: Record) -> PIL.Image.Image:
    image = record.messages[0].parts[0]
    assert isinstance(image, Image)
    return load_image(image.source)


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, 0]))


def test_held_out_styles_are_the_test_and_nothing_else(drawings: list[Drawing]) -> None:
    splits = defaultdict(set)
    for record in (*emoji_records(drawings), *emoji_many_records(drawings)):
        splits[record.source.split()[1]].add(record.split)
        assert record.licence
    held_out = {STYLES[style].name for style in HELD_OUT_STYLES}
    assert splits.keys() == {package.name for package in STYLES.values()}
    assert all(splits[name] == {"test"} for name in held_out)
    assert all("train" in splits[name] and "test" not in splits[name] for name in splits.keys() - held_out)


def test_every_emoji_that_is_tested_was_trained_under_the_same_name(drawings: list[Drawing]) -> None:
    records = list(emoji_records(drawings))
    tested, trained = ({record.answer for record in records if record.split == split} for split in ("test", "train"))
    assert tested == trained == {f"thing {number}" for number in range(len(KEYS))}
    assert {record.messages[0].parts[1] for record in records if record.split == "test"} == {TEST_QUESTION}


def test_conversations_about_several_emoji_ask_for_each(drawings: list[Drawing]) -> None:
    for record in emoji_many_records(drawings):
        questions = record.messages[::2]
        assert 2 <= len(questions) <= 4
        assert all(isinstance(question.parts[0], Image) for question in questions)
        assert all(message.role == "assistant" for message in record.messages[1::2])


def test_icons_are_found_by_code_point_or_by_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emoji_drawings, "MISNAMED", {"noto": {"cat": "cat face"}})
    emoji = [
        Emoji("1f431", "cat face", (), has_name=True),
        Emoji("1f34e", "red apple", ("apple",), has_name=True),
        Emoji("1f34f", "green apple", ("apple", "green_fruit"), has_name=True),
    ]
    by_points = {"1f431": "kitty", "1f34e": "ruby", "1f34f": "emerald"}
    sets = {style: icon_set({"kitty": 1, "ruby": 2, "emerald": 3}, by_points) for style in STYLES}
    # A name of another set, Unicode's name, two drawings of one emoji; what "apple" means is unclear.
    sets["noto"] = icon_set({"cat": 1, "apple": 2, "greenfruit": 3}, {})
    sets["fxemoji"] = icon_set({"kitty": 1, "redapple-1": 2, "redapple-2": 4, "emerald": 3}, {})
    found = match_drawings(sets, emoji)
    names = {
        style: {drawing.icon: drawing.name for drawing in found if drawing.style == style}
        for style in ("noto", "fxemoji", "twemoji")
    }
    assert names["noto"] == {"cat": "cat face", "greenfruit": "green apple"}
    assert names["fxemoji"] == {
        "kitty": "cat face",
        "redapple-1": "red apple",
        "redapple-2": "red apple",
        "emerald": "green apple",
    }
    assert names["twemoji"] == {"kitty": "cat face", "ruby": "red apple", "emerald": "green apple"}


def test_a_name_needs_styles_to_learn_it_from_and_one_to_test_it(emoji: list[Emoji]) -> None:
    icons = {"a": 1, "b": 2, "c": 3, "d": 4}
    sets = {}
    for place, style in enumerate(sorted(STYLES, key=lambda style: style in HELD_OUT_STYLES)):
        # "a" is everywhere, "b" is in few styles, "c" is in no held-out style, "d" has no name.
        keys = {KEYS[0]: "a", KEYS[3]: "d", **({KEYS[1]: "b"} if place < 5 else {})}
        sets[style] = icon_set(icons, keys | ({} if style in HELD_OUT_STYLES else {KEYS[2]: "c"}))
    named = [*emoji[:3], replace(emoji[3], has_name=False)]
    assert {drawing.name for drawing in match_drawings(sets, named)} == {"thing 0"}


def test_a_drawing_that_stands_for_two_emoji_is_left_out(emoji: list[Emoji]) -> None:
    sets = {style: icon_set({"a": 1, "b": 2}, {KEYS[0]: "a", KEYS[1]: "b"}) for style in STYLES}
    sets["openmoji"] = icon_set({"a": 1, "b": 1}, {KEYS[0]: "a", KEYS[1]: "b"})
    found = Counter(drawing.style for drawing in match_drawings(sets, emoji[:2]))
    assert found["openmoji"] == 0
    assert found["twemoji"] == 2


def test_further_drawings_are_called_like_the_emoji_and_are_for_training(tmp_path: Path) -> None:
    emoji = [
        Emoji("41", "letter a", ("a",), has_name=True),
        Emoji("a9", "copyright", (), has_name=True),
        Emoji("1f34e", "red apple", ("apple",), has_name=True),
        Emoji("1f34f", "green apple", ("apple", "green_fruit"), has_name=True),
    ]
    font = PIL.ImageFont.load_default(20)
    assert isinstance(font, PIL.ImageFont.FreeTypeFont)
    (tmp_path / "font.ttf").write_bytes(font.font_bytes)
    PIL.Image.new("RGBA", (20, 10), (255, 0, 0, 255)).save(tmp_path / "1f34e-fe0f.webp", lossless=True)
    icons = {"green-apple-fill": 1, "green-apple-2-outline": 2, "apple": 3, "green-fruit": 4, "red-apple": 5}

    drawings = [
        *further_drawings.glyphs("symbola", [tmp_path / "font.ttf"], emoji),
        *further_drawings.renderings("fluent-3d", tmp_path, emoji),
        *further_drawings.icons("mdi", icon_set(icons, {}), emoji),
    ]
    # Not the letter, since fonts show the key as a character; not "apple", which is two emoji; no variants.
    assert [(drawing.style, drawing.icon, drawing.name) for drawing in drawings] == [
        ("symbola", "a9", "copyright"),
        ("fluent-3d", "1f34e", "red apple"),
        ("mdi", "green-apple-fill", "green apple"),
        ("mdi", "red-apple", "red apple"),
    ]
    records = list(emoji_records(drawings))
    assert {record.split for record in records} == {"train"}
    assert all(record.licence for record in records)
    # A glyph and a picture that is not square stand in the middle.
    for record in records[:2]:
        ink = np.argwhere(np.asarray(picture_of(record)).min(axis=2) < 128)
        assert np.asarray(picture_of(record)).shape == (64, 64, 3)
        assert np.abs(ink.min(axis=0) + ink.max(axis=0) - 63).max() <= 4, record.id


def test_the_packages_files_are_read(tmp_path: Path) -> None:
    icons = {"a": {"body": "<g/>"}, "b": {"body": "<p/>", "width": 72, "height": 72}}
    aliases = {"other": {"parent": "a"}, "mirrored": {"parent": "a", "hFlip": True}}
    (tmp_path / "icons.json").write_text(json.dumps({"icons": icons, "aliases": aliases, "width": 128, "height": 128}))
    (tmp_path / "chars.json").write_text(json.dumps({"1F600-FE0F": "a"}))
    read = read_icon_set(tmp_path)
    assert 'viewBox="0 0 128 128"><g/>' in read.icons["a"]
    assert 'viewBox="0 0 72 72"' in read.icons["b"]
    assert (read.characters, read.aliases) == ({"1f600": "a"}, {"other": "a"})

    (tmp_path / "shortcodes").mkdir()
    (tmp_path / "shortcodes/github.json").write_text(json.dumps({"1F31B": ["moon", "night"]}))
    raw = [
        {"hexcode": "1F31B", "label": "Japanese “here” moon’s face", "group": 4},
        {"hexcode": "1F1E6-1F1E8", "label": "flag: Ascension Island", "group": 9},
        {"hexcode": "1F468-200D-1F33E", "label": "man farmer", "group": 1},
        {"hexcode": "1F1E6", "label": "regional indicator A"},
    ]
    (tmp_path / "data.json").write_text(json.dumps(raw))
    moon, *others = read_emoji(tmp_path)
    assert moon.name == 'japanese "here" moon\'s face'
    assert moon.shortcodes == ("moon", "night")
    assert moon.has_name
    assert not any(member.has_name for member in others)


def test_every_question_of_easy_vqa_is_asked_in_its_split(pictures: list[Picture]) -> None:
    records = list(easy_vqa_records(pictures))
    turns: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        assert isinstance(record.messages[0].parts[0], Image)
        folder = record.id.split("/")[1]
        assert (folder == "test") == (record.split == "test")
        if record.split != "train":
            assert len(record.messages) == 2
        turns[record.split].update(str(message.parts[-1]) for message in record.messages[::2])
    assert set(turns["test"].values()) == {80}
    number_trained = sum(picture.split == "train" for picture in pictures)
    assert 80 - number_trained == sum(picture.split == "valid" for picture in pictures) > 0
    # Once in a conversation, and alone for about a quarter of the pictures.
    assert all(number_trained < count < 1.5 * number_trained for count in turns["train"].values())


def test_spoken_questions_have_no_text_and_only_what_was_spoken(pictures: list[Picture]) -> None:
    clips = {"is it red": [b"first", b"second"], "what color is the shape": [b"third"]}
    tested = [picture for picture in pictures if picture.split == "test"]
    records = list(spoken_records(tested, clips, "a voice", "CC0-1.0", one_in=2))
    assert 20 < len(records) < 60
    heard = set()
    for record in records:
        image, sound = record.messages[0].parts
        assert isinstance(image, Image)
        assert isinstance(sound, Sound)
        heard.add((sound.source, record.answer))
    assert heard == {(b"first", "no"), (b"second", "no"), (b"third", "teal")}
    assert records[0].source.endswith("a voice")
    assert "CC0-1.0" in records[0].licence


def test_lines_are_tested_with_unseen_words_in_unseen_fonts(lines: list[Record]) -> None:
    assert Counter(record.split for record in lines) == {"train": 30, "valid": 5, "test": 20}
    for record in lines:
        assert all(word_split(word) == record.split for word in record.answer.split())
        assert (FONTS["lato"].name in record.source) == (record.split == "test")


def test_capitals_do_not_bring_a_held_out_word_back() -> None:
    assert all(word_split(word) == word_split(word.capitalize()) for word in WORDS)
    assert (font_family("Courier Prime Sans Bold"), font_family("Inter-Bold")) == ("Courier Prime", "Inter")
    assert font_family("LinLibertine_RB") == font_family("LinLibertine_RI")


def test_lines_fit_into_their_pictures(lines: list[Record]) -> None:
    for record in lines:
        picture = picture_of(record)
        assert picture.height == HEIGHT_PX
        assert picture.width <= MAX_WIDTH_PX
        pixels = np.asarray(picture.convert("L"), dtype=int)
        edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        assert np.ptp(edge) <= 2
        assert np.ptp(pixels) > 50


def test_the_same_inputs_give_the_same_shards(
    drawings: list[Drawing], pictures: list[Picture], lines: list[Record], faces: list[Face], tmp_path: Path
) -> None:
    words = [f"{first}{second}" for first in WORDS for second in WORDS]
    again = text_line_records(faces, words, {"train": 30, "valid": 5, "test": 20})
    for name, first, second in (
        ("emoji", emoji_records(drawings), emoji_records(drawings)),
        ("emoji_many", emoji_many_records(drawings), emoji_many_records(drawings)),
        ("easy_vqa", easy_vqa_records(pictures), easy_vqa_records(pictures)),
        ("text_line", iter(lines), again),
    ):
        write_shards(first, tmp_path / "first" / name)
        write_shards(second, tmp_path / "second" / name)
        opened = [ShardedRecords.open(tmp_path / folder / name) for folder in ("first", "second")]
        assert opened[0].digest == opened[1].digest


def test_augmentation_depends_on_its_generator_alone(drawings: list[Drawing], lines: list[Record]) -> None:
    for record in (next(emoji_records(drawings)), lines[0]):
        changed = [augment(record, generator(seed)) for seed in (1, 1, 2)]
        pixels = [picture_of(item).tobytes() for item in (record, *changed)]
        assert pixels[1] == pixels[2]
        assert len(set(pixels)) == 3
        assert {picture_of(item).size for item in changed} == {picture_of(record).size}
        assert {(item.id, item.answer, item.messages[0].parts[1]) for item in changed} == {
            (record.id, record.answer, record.messages[0].parts[1])
        }


def test_words_mostly_puts_an_empty_system_message_before_a_conversation(lines: list[Record]) -> None:
    drawn = [augment_briefly(lines[0], generator(seed)) for seed in range(100)]
    empty = [record for record in drawn if record.messages[0] == Message("system", "")]
    assert 65 <= len(empty) <= 95
    assert {len(record.messages) for record in empty} == {len(lines[0].messages) + 1}
    assert all(len(record.messages) == len(lines[0].messages) for record in drawn if record not in empty)
    asked = replace(lines[0], messages=(Message("system", "Spell it."), *lines[0].messages))
    assert {augment_briefly(asked, generator(seed)).messages[0].content for seed in range(10)} == {"Spell it."}


def test_augmentation_keeps_shapes_whole_and_colours_true(pictures: list[Picture]) -> None:
    (record, *_) = easy_vqa_records(pictures)
    seen = set()
    for seed in range(30):
        pixels = np.asarray(picture_of(augment(record, generator(seed))), dtype=int)
        shape = (np.abs(pixels - (0, 128, 128)) <= 1).all(axis=2)
        # Eight pixels square, made at most 15 % smaller, with blended edges.
        assert 25 <= shape.sum() <= 64
        assert tuple(pixels[0, 0]) == (240, 250, 245)
        seen.add(shape.tobytes())
    assert len(seen) > 20


def test_augmentation_paints_the_ground_and_not_the_drawing() -> None:
    picture = PIL.Image.new("RGB", (72, 72), "white")
    draw = PIL.ImageDraw.Draw(picture)
    draw.ellipse((12, 12, 60, 60), fill="white", outline="black", width=6)
    uncovered = replace(EMOJI, erase_share=0.0)
    corners, middles = [], []
    for seed in range(40):
        pixels = np.asarray(change(picture, uncovered, generator(seed)), dtype=float)
        corners.append(np.ptp(pixels[2:6, 2:6].mean(axis=(0, 1))))
        middles.append(np.ptp(pixels[34:38, 34:38].mean(axis=(0, 1))))
    # A colour has unequal channels; white and grey have equal ones, but for noise.
    assert 4 <= sum(spread > 20 for spread in corners) <= 25
    assert max(middles) < 15


def disc(side: int = 60) -> PIL.Image.Image:
    picture = PIL.Image.new("RGB", (side, side), "white")
    PIL.ImageDraw.Draw(picture).ellipse((15, 15, 45, 45), fill="black")
    return picture


def count_black(picture: PIL.Image.Image) -> int:
    return int((np.asarray(picture.convert("L")) < 128).sum())


def test_bending_moves_what_is_drawn_and_leaves_the_edges() -> None:
    picture = PIL.Image.new("RGB", (60, 60), "white")
    for place in range(0, 60, 10):
        PIL.ImageDraw.Draw(picture).line((place, 0, place, 59), fill="black", width=2)
    bent = np.asarray(bend(picture, 0.3, generator(1)), dtype=int)
    before = np.asarray(picture, dtype=int)
    assert np.abs(bent - before).mean() > 10
    assert np.abs(bent[0] - before[0]).mean() < 10
    assert bend(picture, 0.0, generator(1)).tobytes() == picture.tobytes()


def test_strokes_become_thicker_and_thinner() -> None:
    sizes = {count_black(change_strokes(disc(), generator(seed))) for seed in range(20)}
    assert min(sizes) < count_black(disc()) < max(sizes)


def test_what_is_erased_is_one_rectangle_and_not_most_of_the_picture() -> None:
    for seed in range(10):
        picture = disc()
        changed = (np.asarray(erase(picture, generator(seed))) != np.asarray(picture)).any(axis=2)
        rows, columns = np.nonzero(changed)
        assert (np.ptp(rows) + 1) * (np.ptp(columns) + 1) <= (0.4 * 60) ** 2


def test_other_records_stay_as_they_are(lines: list[Record]) -> None:
    record = replace(lines[0], task="chat")
    assert augment(record, generator(0)) is record


def test_a_data_set_that_is_there_is_kept(
    lines: list[Record], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(tmp_path, {"text_line": lambda: iter(lines)})
    before = ShardedRecords.open(tmp_path / "text_line").digest
    build(tmp_path, {"text_line": lambda: iter(lines[:3]), "few": lambda: iter(lines[:3])})
    assert ShardedRecords.open(tmp_path / "text_line").digest == before
    assert len(ShardedRecords.open(tmp_path / "few")) == 3
    assert [line.rpartition(": ")[2] for line in capsys.readouterr().out.splitlines()] == ["built", "kept", "built"]


@pytest.mark.slow
def test_the_real_packages_give_enough_and_hold_out_what_they_should() -> None:
    styles = defaultdict(set)
    for drawing in emoji_drawings.all_drawings():
        assert (drawing.style in HELD_OUT_STYLES) == (drawing.split == "test")
        styles[drawing.name].add(drawing.style)
    assert len(styles) >= 1000
    assert all(found & HELD_OUT_STYLES and len(found - HELD_OUT_STYLES) >= 4 for found in styles.values())

    splits = {picture.name: picture.split for picture in all_pictures()}
    assert Counter(splits.values())["test"] == 1000
    assert all((split == "test") == name.startswith("test/") for name, split in splits.items())

    for record in text_line_records(all_faces(), all_words(), {"train": 200, "valid": 20, "test": 60}):
        assert all(word_split(word) == record.split for word in record.answer.split())
    families = {face.family: face.is_held_out for face in all_faces()}
    assert sum(families.values()) == 3
    assert len(families) > 20
