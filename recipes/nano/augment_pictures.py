"""Changes the pictures of training records a little, each time differently, in ways that leave the answer true."""

import math
from dataclasses import dataclass, replace

import numpy as np
import PIL.Image
import PIL.ImageFilter

from phi4.data.record import Record
from phi4.processing.image_file import load_image
from phi4.processing.messages import Image, Message

# A ground that is dark would swallow black outlines.
GROUND_COLOURS = (100, 256)
MAX_BLUR_PX = 0.8
MAX_NOISE = 12.0
MAX_ENLARGEMENT = 3.0

# Corners of the mesh by which a picture is bent, along each side.
MESH_CORNERS = 4
# Sides of what may be erased, as shares of the picture's.
ERASED_SIDES = (0.1, 0.4)

# ITU-R BT.601.
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
GREY_AXIS = np.full(3, 1 / math.sqrt(3), dtype=np.float32)


@dataclass(frozen=True)
class Changes:
    """What may happen to the pictures of a task.

    Attributes:
        rotation_degrees: at most, either way. Nothing is mirrored: arrows and letters would change.
        scales: between which the size is drawn.
        squeeze: by how much of its width a picture may become narrower.
        bend: how far the corners of a mesh may move, as a share of the distance between them.
        shift: how far it may move, as a share of the shorter side.
        keep_inside: whether it moves no further than it became smaller, so that nothing leaves the picture.
        ground_share: how often white around the drawing becomes a light colour.
        brightness, contrast, saturation: how far each may be from 1, either way.
        hue_degrees: at most, either way; small, since some names are colours.
        grey_share: how often no colours are left.
        stroke_share: how often lines become thicker or thinner, by up to one pixel on each side.
        erase_share: how often a rectangle is covered by one colour.
        blur_share: how often it is blurred.
        noise_share: how often noise is added.
        larger_share: how often it is enlarged, up to `MAX_ENLARGEMENT` times: people's pictures take several crops.
    """

    rotation_degrees: float = 0.0
    scales: tuple[float, float] = (1.0, 1.0)
    squeeze: float = 0.0
    bend: float = 0.0
    shift: float = 0.0
    keep_inside: bool = False
    ground_share: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue_degrees: float = 0.0
    grey_share: float = 0.0
    stroke_share: float = 0.0
    erase_share: float = 0.0
    blur_share: float = 0.0
    noise_share: float = 0.0
    larger_share: float = 0.0


EMOJI = Changes(
    rotation_degrees=15.0,
    scales=(0.7, 1.1),
    squeeze=0.2,
    bend=0.3,
    shift=0.1,
    ground_share=0.3,
    brightness=0.25,
    contrast=0.3,
    saturation=0.6,
    hue_degrees=15.0,
    grey_share=0.1,
    stroke_share=0.4,
    erase_share=0.3,
    blur_share=0.2,
    noise_share=0.2,
    larger_share=0.15,
)
# Colours are asked for, and shapes may lie at the edge.
SHAPES = Changes(scales=(0.85, 1.0), shift=0.075, keep_inside=True)
TEXT = Changes(
    rotation_degrees=0.5,
    scales=(0.92, 1.0),
    squeeze=0.1,
    shift=0.03,
    brightness=0.15,
    contrast=0.15,
    saturation=0.3,
    hue_degrees=30.0,
    blur_share=0.2,
    noise_share=0.3,
)
TASKS = {
    "emoji": EMOJI,
    "emoji_many": EMOJI,
    "easy_vqa": SHAPES,
    "easy_vqa_named": SHAPES,
    "spoken_vqa": SHAPES,
    "text_line": TEXT,
}


def augment(record: Record, generator: np.random.Generator) -> Record:
    """Returns the record with its pictures changed at random.

    Args:
        record: any; texts and sounds stay, and so do pictures of tasks that are not in `TASKS`.
        generator: alone determines what happens.
    """
    changes = TASKS.get(record.task)
    if changes is None:
        return record
    messages = tuple(_augment_message(message, changes, generator) for message in record.messages)
    return replace(record, messages=messages)


def _augment_message(message: Message, changes: Changes, generator: np.random.Generator) -> Message:
    if isinstance(message.content, str):
        return message
    parts = (
        Image(change(load_image(part.source), changes, generator)) if isinstance(part, Image) else part
        for part in message.content
    )
    return replace(message, content=tuple(parts))


def change(picture: PIL.Image.Image, changes: Changes, generator: np.random.Generator) -> PIL.Image.Image:
    """Changes one RGB picture."""
    if generator.random() < changes.larger_share:
        factor = generator.uniform(1.0, MAX_ENLARGEMENT)
        picture = picture.resize((round(picture.width * factor), round(picture.height * factor)))
    if generator.random() < changes.ground_share:
        picture = recolour_ground(picture, generator.integers(*GROUND_COLOURS, size=3))
    picture = move(picture, changes, generator)
    if changes.bend:
        picture = bend(picture, changes.bend, generator)
    if generator.random() < changes.stroke_share:
        picture = change_strokes(picture, generator)
    if generator.random() < changes.erase_share:
        picture = erase(picture, generator)
    if generator.random() < changes.blur_share:
        picture = picture.filter(PIL.ImageFilter.GaussianBlur(generator.uniform(0.0, MAX_BLUR_PX)))
    matrix, offset = colour_change(changes, generator)
    noise = generator.uniform(0.0, MAX_NOISE) if generator.random() < changes.noise_share else 0.0
    if not noise and offset == 0.0 and np.allclose(matrix, np.eye(3)):
        return picture
    pixels = np.asarray(picture, dtype=np.float32) @ matrix.T + offset
    if noise:
        pixels += noise * generator.standard_normal(pixels.shape, dtype=np.float32)
    return PIL.Image.fromarray(np.clip(pixels + 0.5, 0.0, 255.0).astype(np.uint8))


def recolour_ground(picture: PIL.Image.Image, colour: np.ndarray) -> PIL.Image.Image:
    """Gives the exactly white pixels that can be seen from an edge, in a straight line, another colour.

    Args:
        picture: RGB.
        colour: red, green and blue, [3].
    """
    pixels = np.array(picture)
    white = (pixels == 255).all(axis=2)
    ground = np.zeros_like(white)
    for axis in (0, 1):
        ground |= np.logical_and.accumulate(white, axis=axis)
        ground |= np.flip(np.logical_and.accumulate(np.flip(white, axis), axis=axis), axis)
    pixels[ground] = colour
    return PIL.Image.fromarray(pixels)


def move(picture: PIL.Image.Image, changes: Changes, generator: np.random.Generator) -> PIL.Image.Image:
    """Turns, scales and shifts a picture; what was outside of it gets the middle colour of its edges."""
    angle = math.radians(generator.uniform(-changes.rotation_degrees, changes.rotation_degrees))
    height_scale = generator.uniform(*changes.scales)
    width_scale = height_scale * generator.uniform(1.0 - changes.squeeze, 1.0)
    shift = min(changes.shift, (1.0 - height_scale) / 2) if changes.keep_inside else changes.shift
    shift_px = shift * min(picture.size) * generator.uniform(-1.0, 1.0, size=2)
    cosine, sine = math.cos(angle), math.sin(angle)
    # Pillow asks where in the old picture each pixel of the new one comes from.
    inverse = np.array([[cosine, sine], [-sine, cosine]]) / np.array([[width_scale], [height_scale]])
    centre = np.array(picture.size) / 2
    origin = centre - inverse @ (centre + shift_px)
    pixels = np.asarray(picture)
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = (int(value) for value in np.median(edges, axis=0))
    return picture.transform(
        picture.size,
        PIL.Image.Transform.AFFINE,
        (*inverse[0], origin[0], *inverse[1], origin[1]),
        resample=PIL.Image.Resampling.BILINEAR,
        fillcolor=(red, green, blue),
    )


def bend(picture: PIL.Image.Image, share: float, generator: np.random.Generator) -> PIL.Image.Image:
    """Moves the inner corners of a mesh, and everything between them."""
    steps = [np.linspace(0.0, side, MESH_CORNERS) for side in picture.size]
    corners = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1)
    reach = share * np.array(picture.size) / (MESH_CORNERS - 1)
    inner = corners[1:-1, 1:-1]
    moved = corners.copy()
    moved[1:-1, 1:-1] = inner + reach * generator.uniform(-1.0, 1.0, size=inner.shape)
    mesh = [
        (
            tuple(int(value) for value in (*corners[x, y].round(), *corners[x + 1, y + 1].round())),
            (*moved[x, y], *moved[x, y + 1], *moved[x + 1, y + 1], *moved[x + 1, y]),
        )
        for x in range(MESH_CORNERS - 1)
        for y in range(MESH_CORNERS - 1)
    ]
    return picture.transform(picture.size, PIL.Image.Transform.MESH, mesh, resample=PIL.Image.Resampling.BILINEAR)


def change_strokes(picture: PIL.Image.Image, generator: np.random.Generator) -> PIL.Image.Image:
    """Makes dark lines thicker or thinner, partly."""
    spread = PIL.ImageFilter.MinFilter(3) if generator.random() < 0.5 else PIL.ImageFilter.MaxFilter(3)
    return PIL.Image.blend(picture, picture.filter(spread), generator.uniform(0.2, 1.0))


def erase(picture: PIL.Image.Image, generator: np.random.Generator) -> PIL.Image.Image:
    """Covers a rectangle by one colour."""
    size = np.array(picture.size)
    sides = np.ceil(size * generator.uniform(*ERASED_SIDES, size=2)).astype(int)
    left, top = (generator.uniform(size=2) * (size - sides)).astype(int)
    colour = tuple(int(value) for value in generator.integers(256, size=3))
    picture = picture.copy()
    picture.paste(colour, (left, top, left + sides[0], top + sides[1]))
    return picture


def colour_change(changes: Changes, generator: np.random.Generator) -> tuple[np.ndarray, float]:
    """Draws a change of all colours.

    Returns:
        What red, green and blue are multiplied by, fp32 [3, 3], and what is added to each.
    """
    brightness, contrast, saturation = (
        1.0 + share * generator.uniform(-1.0, 1.0)
        for share in (changes.brightness, changes.contrast, changes.saturation)
    )
    hue = math.radians(generator.uniform(-changes.hue_degrees, changes.hue_degrees))
    if generator.random() < changes.grey_share:
        saturation = 0.0
    grey = np.tile(LUMA, (3, 1))
    matrix = brightness * contrast * (grey + saturation * (np.eye(3, dtype=np.float32) - grey)) @ turn_hue(hue)
    return matrix.astype(np.float32), 127.5 * (1.0 - contrast)


def turn_hue(angle: float) -> np.ndarray:
    """Turns colours about the axis of greys by an angle in radians: [3, 3] (Rodrigues' formula)."""
    x, y, z = GREY_AXIS
    across = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    turned: np.ndarray = np.eye(3) + math.sin(angle) * across + (1.0 - math.cos(angle)) * across @ across
    return turned
