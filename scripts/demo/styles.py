"""Draw scenes: clean, and in five shifted styles of graded severity.

Severity is a number in [0, 5]; 0 draws the clean picture.

| style | what happens to the picture at severity s |
|---|---|
| sketch | the filled stroke fades, by s/5, into its outline |
| noise | Gaussian noise on each pixel and channel, standard deviation 0.09 s (pixels in [0, 1]) |
| contrast | each pixel moves, by 0.18 s, towards one grey between 0.35 and 0.65 |
| rotation | each digit is turned about its centre by 12 s to 15 s degrees, to either side |
| blur | Gaussian blur of radius 0.55 s pixels |

The test sets have one severity per style, for single digits and for scenes. They were chosen by looking at the models'
zero-shot accuracy and recall on the test sets, so that the policy starts at 30 to 60% and the reward model is well
above it; so was which retrieval scenes resemble each other. They grade the difficulty, they are not a result.
Every picture is a function of its scene, style, severity and seed; no global generator is read or changed.
"""

import numpy as np
from PIL import Image, ImageFilter

from scripts.demo.arrangements import chosen_captions, retrieval_scenes
from scripts.demo.scenes import CANVAS_PX, COLOURS, Digit, Scene, handwritten, test_scenes

MAX_SEVERITY = 5.0


def _as_picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.round(np.clip(pixels, 0.0, 1.0) * 255).astype(np.uint8))


def _as_pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture, dtype=np.float64) / 255


def _ink(digit: Digit, style: str, severity: float, rng: np.random.Generator) -> Image.Image:
    """A handwritten digit in its size, changed where the style changes the ink."""
    ink = _as_picture(handwritten()[0][digit.image_index])
    ink = ink.resize((digit.size, digit.size), Image.Resampling.BICUBIC)
    if style == "sketch":
        edge = _as_pixels(ink.filter(ImageFilter.MaxFilter(3))) - _as_pixels(ink.filter(ImageFilter.MinFilter(3)))
        return _as_picture(_as_pixels(ink) + (edge - _as_pixels(ink)) * severity / MAX_SEVERITY)
    if style == "rotation":
        return ink.rotate(severity * rng.uniform(12, 15) * rng.choice((-1, 1)), resample=Image.Resampling.BILINEAR)
    return ink


def _restyled(pixels: np.ndarray, style: str, severity: float, rng: np.random.Generator) -> np.ndarray:
    """A whole picture, changed where the style changes that."""
    if style == "noise":
        return pixels + rng.normal(0.0, 0.09 * severity, size=pixels.shape)
    if style == "contrast":
        return pixels + (rng.uniform(0.35, 0.65) - pixels) * 0.18 * severity
    if style == "blur":
        return _as_pixels(_as_picture(pixels).filter(ImageFilter.GaussianBlur(0.55 * severity)))
    return pixels


TEST_SEVERITY = {"clean": 0.0, "sketch": 3.25, "noise": 1.125, "contrast": 3.0, "rotation": 2.0, "blur": 4.0}
RETRIEVAL_SEVERITY = {"clean": 0.0, "sketch": 5.0, "noise": 2.0, "contrast": 3.25, "rotation": 4.0, "blur": 4.0}
STYLES = tuple(TEST_SEVERITY)


def render(scene: Scene, style: str = "clean", severity: float = 0.0, seed: int = 0) -> Image.Image:
    """Draw a scene as an RGB picture of 24 x 24 pixels.

    The seed is of the brightness of paper and ink, whatever the style, and of the style's own chance.
    ValueError: unknown style, or a severity out of range.
    """
    if style not in STYLES:
        raise ValueError(f"unknown style {style!r}; expected one of {', '.join(STYLES)}")
    if not 0 <= severity <= MAX_SEVERITY or (style == "clean" and severity):
        expected = "0" if style == "clean" else f"0 to {MAX_SEVERITY:g}"
        raise ValueError(f"severity of style {style!r}: expected {expected}, got {severity}")
    rng = np.random.default_rng(seed)
    pixels = np.full((CANVAS_PX, CANVAS_PX, 3), rng.uniform(0.0, 0.15))
    shades = rng.uniform(0.8, 1.0, size=len(scene.digits))
    for digit, shade in zip(scene.digits, shades, strict=True):
        square = Image.new("L", (CANVAS_PX, CANVAS_PX))
        square.paste(_ink(digit, style, severity, rng), (digit.left, digit.top))
        opacity = _as_pixels(square)[:, :, None]
        pixels = pixels + (shade * np.array(COLOURS[digit.colour]) - pixels) * opacity
    return _as_picture(_restyled(pixels, style, severity, rng))


def test_pictures(style: str) -> tuple[list[Image.Image], list[int]]:
    """The test set of a style: 240 pictures of the same scenes in all styles, and their classes, in label order."""
    scenes = list(enumerate(test_scenes()))
    pictures = [render(scene, style, TEST_SEVERITY[style], seed=index) for index, scene in scenes]
    return pictures, [scene.label for _, scene in scenes]


def retrieval_pictures(style: str) -> tuple[list[Image.Image], list[list[str]]]:
    """The retrieval test set of a style: 200 pictures of the same scenes in all styles, 3 captions of each."""
    scenes = list(enumerate(retrieval_scenes()))
    pictures = [render(scene, style, RETRIEVAL_SEVERITY[style], seed=index) for index, scene in scenes]
    return pictures, [chosen_captions(scene, index) for index, scene in scenes]
