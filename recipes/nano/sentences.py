"""What is said in nano's speech data: digit strings, short commands, and everyday English from WordNet's examples.

Everything is lower case and spelled out, the form in which nano transcribes.
"""

import hashlib
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

ROOMS = ("kitchen", "bedroom", "living room", "bathroom", "garage", "office", "hallway", "garden", "basement", "attic")
DEVICES = ("light", "lamp", "heating", "radio", "television", "fan", "oven", "alarm", "coffee machine", "music")
NAMES = (
    *("anna", "peter", "maria", "david", "laura", "james", "sarah", "thomas", "emily", "robert", "susan", "michael"),
    *("julia", "daniel", "helen", "mark", "nina", "paul", "rachel", "simon", "my mother", "my brother", "the doctor"),
)
CITIES = (
    *("london", "paris", "berlin", "madrid", "rome", "boston", "chicago", "denver", "seattle", "tokyo", "sydney"),
    *("oslo", "vienna", "dublin", "new york", "san francisco"),
)
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday", "today", "tomorrow", "tonight")
NUMBERS = (
    *DIGITS[1:],
    *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
    *("twenty", "twenty one", "twenty two", "thirty", "thirty five", "forty", "fifty", "sixty", "seventy five"),
    *("eighty", "ninety", "one hundred"),
)
TIMES = (
    *("six", "seven thirty", "eight", "nine fifteen", "half past ten", "eleven", "noon", "one thirty", "two", "three"),
    *("a quarter to four", "five", "six forty five", "midnight"),
)
FOODS = (
    *("apples", "bottles of milk", "loaves of bread", "eggs", "potatoes", "onions", "bananas", "cups of rice"),
    *("tomatoes", "lemons", "boxes of tea", "bars of chocolate"),
)
TASKS = (
    *("water the plants", "feed the cat", "walk the dog", "pay the rent", "buy a birthday present"),
    *("close the windows", "take out the trash", "pick up the children", "send the report", "book a table"),
    *("wash the car", "read the news"),
)
MUSIC = ("jazz", "classical music", "rock", "the piano", "a quiet song", "folk songs", "the news", "an audio book")
COLORS = ("red", "green", "blue", "yellow", "white", "black", "brown", "gray", "purple", "orange")
PLACES = (
    *("station", "airport", "library", "hospital", "market", "museum", "post office", "school", "park", "beach"),
    *("bank", "hotel", "bakery", "pharmacy"),
)
THINGS = (
    *("key", "book", "phone", "bag", "letter", "ticket", "camera", "umbrella", "chair", "box", "bottle", "map"),
    *("jacket", "hat", "cup", "door", "window", "table"),
)
WEATHER = ("rain", "snow", "be sunny", "be windy", "be cold", "be warm", "be cloudy")
DEPARTMENTS = ("sales", "support", "billing", "an operator", "the front desk", "the directory", "more options")
WORDS = {
    "room": ROOMS,
    "device": DEVICES,
    "name": NAMES,
    "city": CITIES,
    "day": DAYS,
    "number": NUMBERS,
    "time": TIMES,
    "food": FOODS,
    "task": TASKS,
    "music": MUSIC,
    "color": COLORS,
    "place": PLACES,
    "thing": THINGS,
    "weather": WEATHER,
    "department": DEPARTMENTS,
    "digit": DIGITS,
    "switch": ("on", "off"),
    "change": ("up", "down"),
    "unit": ("degrees", "percent", "minutes"),
    "size": ("small", "large", "old", "new"),
    "where": ("on the table", "under the chair", "behind the door", "in the box", "next to the window"),
}
TEMPLATES = (
    "turn {switch} the {device} in the {room}",
    "please turn {change} the {device}",
    "set the {device} to {number} {unit}",
    "call {name} at {time}",
    "call {name} {day}",
    "send a message to {name}",
    "remind me to {task} at {time}",
    "remind me to {task} {day}",
    "what is the weather in {city} {day}",
    "will it {weather} in {city} {day}",
    "play {music} in the {room}",
    "add {number} {food} to the shopping list",
    "we need {number} {food} and {number} {food}",
    "the meeting with {name} is {day} at {time}",
    "wake me up at {time} {day}",
    "how far is it to the {place}",
    "where is the {place} in {city}",
    "the train to {city} leaves at {time}",
    "is the {place} open {day}",
    "where is my {color} {thing}",
    "the {size} {thing} is {where}",
    "put the {color} {thing} {where}",
    "press {digit} for {department}",
    "to reach {department} press {digit}",
    "enter the number {digit} {digit} {digit} followed by the pound key",
    "start a timer for {number} minutes",
    "what time is it in {city}",
    "open the {thing} in the {room}",
    "who left the {thing} at the {place}",
    "{name} went to {city} with {number} friends",
    "i would like a {size} {color} {thing}",
    "how many {food} are in the {room}",
)


def is_held_out(text: str) -> bool:
    """Whether a sentence belongs to the held-out tenth, which no training voice ever says; by its SHA-256."""
    return hashlib.sha256(text.encode()).digest()[0] < 26


def digit_string(random_source: random.Random) -> str:
    """Three to eight digits, spelled out."""
    return " ".join(random_source.choices(DIGITS, k=random_source.randint(3, 8)))


def command(random_source: random.Random) -> str:
    """One sentence of the restricted domain: home, phone, travel and shopping."""
    template = random_source.choice(TEMPLATES)
    return re.sub(r"\{(\w+)\}", lambda match: random_source.choice(WORDS[match[1]]), template)


def draw(make: Callable[[random.Random], str], count: int, held_out: bool, random_source: random.Random) -> list[str]:
    """Draws different sentences from one side of the split."""
    sentences: dict[str, None] = {}
    while len(sentences) < count:
        sentence = make(random_source)
        if is_held_out(sentence) == held_out:
            sentences[sentence] = None
    return list(sentences)


def wordnet_examples(dictionary: Path, max_words: int) -> list[str]:
    """The example sentences of WordNet's glosses, as far as they are short and made of plain words.

    Args:
        dictionary: the folder with `data.noun`, `data.verb`, `data.adj` and `data.adv`.
        max_words: longer examples are left out.
    """
    examples: dict[str, None] = {}
    for part in ("noun", "verb", "adj", "adv"):
        for line in (dictionary / f"data.{part}").read_text(encoding="utf-8").splitlines():
            for quoted in re.findall(r'"([^"]+)"', line.partition(" | ")[2]):
                words = normalise(quoted).split()
                if 3 <= len(words) <= max_words and is_plain(quoted):
                    examples[" ".join(words)] = None
    return sorted(examples)


def is_plain(text: str) -> bool:
    """Whether a text is nothing but words: no digits, abbreviations or signs that could be read in many ways."""
    return re.fullmatch(r"[A-Za-z' ,;?!-]+[.]?", text) is not None


def normalise(text: str) -> str:
    """Lower case, words and apostrophes only: the form of nano's transcripts."""
    return " ".join(re.findall(r"[a-z]+(?:'[a-z]+)*", text.lower().replace("’", "'")))


def word_to_digit(words: Sequence[str]) -> str:
    """The digits among the words, as one string: what digit accuracy is counted on."""
    return "".join(str(DIGITS.index(word)) for word in words if word in DIGITS)
