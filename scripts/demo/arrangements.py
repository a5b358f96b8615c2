"""Scenes of two or three digits, side by side or one above the other, on the canvas of the single digits; captions.

A layout gives each digit a cell of half the canvas; where the canvas has room, a digit moves at random in its cell.
"""

import numpy as np

from scripts.demo.scenes import CANVAS_PX, COLOURS, Digit, Scene, Split, digit_images

DIGIT_PX = CANVAS_PX // 2
NEAR, MIDDLE, FAR = 0, DIGIT_PX // 2, DIGIT_PX  # left or top edge of a digit, pixels
JITTER_PX = 3  # to either side of the middle

# Left and top edge of each digit, in reading order.
LAYOUTS: dict[str, tuple[tuple[int, int], ...]] = {
    "row": ((NEAR, MIDDLE), (FAR, MIDDLE)),
    "column": ((MIDDLE, NEAR), (MIDDLE, FAR)),
    "two above one": ((NEAR, NEAR), (FAR, NEAR), (MIDDLE, FAR)),
    "one above two": ((MIDDLE, NEAR), (NEAR, FAR), (FAR, FAR)),
}
TURNED_LAYOUT = {"row": "column", "column": "row", "two above one": "one above two", "one above two": "two above one"}
N_SCENES = 200  # of a test set
# Of scenes by layout; {0}, {1}, {2} are the digits in reading order, each with its article.
SCENE_TEMPLATES: dict[str, tuple[str, ...]] = {
    "row": ("{0} left of {1}", "{1} right of {0}", "{0} with {1} on the right", "{1} with {0} on the left"),
    "column": ("{0} above {1}", "{1} below {0}", "{0} with {1} at the bottom", "{1} with {0} at the top"),
    "two above one": ("{0} left of {1} above {2}", "{2} below {1} right of {0}",
                      "{1} right of {0} above {2}", "{2} below {0} left of {1}"),
    "one above two": ("{0} above {1} left of {2}", "{2} right of {1} below {0}",
                      "{0} above {2} right of {1}", "{1} left of {2} below {0}"),
}  # fmt: skip
CAPTIONS_PER_SCENE = 3  # of a test scene


def arrange(layout: str, digits: list[tuple[int, str]], rng: np.random.Generator) -> Scene:
    """A scene of digits, each a handwritten image and a colour, in reading order."""

    def shift(edge: int) -> int:
        return edge + int(rng.integers(-JITTER_PX, JITTER_PX + 1)) if edge == MIDDLE else edge

    places = zip(digits, LAYOUTS[layout], strict=True)
    return Scene(tuple(Digit(*digit, shift(left), shift(top), DIGIT_PX) for digit, (left, top) in places), layout)


def random_scene(split: Split, rng: np.random.Generator) -> Scene:
    """A scene of any layout with digits of different names."""
    images = digit_images(split)
    layout, colours = str(rng.choice(list(LAYOUTS))), list(COLOURS)
    names = rng.choice(len(COLOURS) * len(images), size=len(LAYOUTS[layout]), replace=False)
    digits = [(int(rng.choice(images[name % len(images)])), colours[name // len(images)]) for name in names]
    return arrange(layout, digits, rng)


def rearranged(scene: Scene, rng: np.random.Generator) -> Scene:
    """The same digits elsewhere: their order is moved on by one, and half of the time rows become columns."""
    layout = TURNED_LAYOUT[scene.layout] if rng.random() < 0.5 else scene.layout
    digits = [(digit.image_index, digit.colour) for digit in (*scene.digits[1:], scene.digits[0])]
    return arrange(layout, digits, rng)


def changed(scene: Scene, what: str, place: int, split: Split, rng: np.random.Generator) -> Scene:
    """The same arrangement with another "colour", or another "value", of the digit at one place."""
    digits = [(digit.image_index, digit.colour) for digit in scene.digits]
    image_index, colour = digits[place]
    if what == "colour":
        digits[place] = image_index, str(rng.choice([other for other in COLOURS if other != colour]))
    else:
        values = [value for value in digit_images(split) if value != scene.digits[place].value]
        digits[place] = int(rng.choice(digit_images(split)[int(rng.choice(values))])), colour
    return arrange(scene.layout, digits, rng)


def retrieval_scenes(seed: int = 0) -> list[Scene]:
    """The 200 test scenes, all of different content, in pairs that are easily mistaken for one another.

    A random scene is followed by one with another digit at one place or, in every second pair, its digits rearranged.
    """
    rng = np.random.default_rng(seed)
    scenes: dict[tuple[str, ...], Scene] = {}
    while len(scenes) < N_SCENES:
        if len(scenes) % 2 == 0:
            scene = first = random_scene("test", rng)
        elif len(scenes) % 4 == 1:
            scene = changed(first, "value", int(rng.integers(len(first.digits))), "test", rng)
        else:
            scene = rearranged(first, rng)
        if len(set(scene.content)) == len(scene.content):  # no two digits of one name
            scenes.setdefault(scene.content, scene)
    return list(scenes.values())


def scene_pairs(number: int, seed: int) -> list[Scene]:
    """Training scenes, 2 x number: each is followed by one that differs little, in arrangement or in one digit."""
    rng = np.random.default_rng(seed)
    scenes = []
    for _ in range(number):
        scenes.append(scene := random_scene("train", rng))
        if rng.random() < 0.5:
            scenes.append(rearranged(scene, rng))
        else:
            place = int(rng.integers(len(scene.digits)))
            scenes.append(changed(scene, "colour" if rng.random() < 0.5 else "value", place, "train", rng))
    return scenes


def captions_of(scene: Scene) -> list[str]:
    """All true captions of a scene of two or three digits; each names all its digits and their arrangement."""
    names = [f"a {digit.name}" for digit in scene.digits]
    return [template.format(*names) for template in SCENE_TEMPLATES[scene.layout]]


def chosen_captions(scene: Scene, index: int) -> list[str]:
    """Three captions of a test scene: its index says with which wording they begin."""
    captions, start = captions_of(scene), index % len(SCENE_TEMPLATES[scene.layout])
    return (captions + captions)[start : start + CAPTIONS_PER_SCENE]
