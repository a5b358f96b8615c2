"""The gallery's cards: what the page shows of one sample, the same shape for the three tasks.

A card is a dict that JSON can hold; page.js draws it, every text as text. Pictures are places in `Pictures.uris`: made
small, and of the views that a sample was adapted on, drawn again.
"""

import base64
import hashlib
import io
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from clipscore.data.open_image import UnreadableImage, open_image
from clipscore.data.samples import sample_seed
from scripts.runs.rows import Row
from scripts.runs.samples import BROKEN, FELL, FIXED, NOT_ADAPTED, RIGHT, ROSE, UNCHANGED, WRONG, Run, read_sample

Card = dict[str, Any]
SIDE, VIEW_SIDE, ITEM_SIDE = 200, 72, 112  # longest sides in pixels; shown a little smaller, for dense screens
DRAWN_SIDE = 224  # at which views are drawn before they are made small
QUALITY = 80
NUM_ANSWERS = 3  # of the answers that a record holds, best first
OUTCOMES = {  # what the gallery's filters are called
    FIXED: "fixed by adaptation", BROKEN: "broken by adaptation", RIGHT: "right", WRONG: "wrong",
    ROSE: "reward rose", FELL: "reward fell", UNCHANGED: "unchanged", NOT_ADAPTED: "not adapted",
}  # fmt: skip


def choose(outcomes: Mapping[str, str], count: int) -> list[str]:
    """Sample ids, at most `count`, balanced over their outcomes (sample id -> outcome).

    Inside an outcome they are in the order of their ids' hashes, which two runs on the same data share.
    """
    waiting: dict[str, deque[str]] = {}
    for key in sorted(outcomes, key=lambda key: hashlib.sha256(key.encode(errors="surrogatepass")).digest()):
        waiting.setdefault(outcomes[key], deque()).append(key)
    chosen: list[str] = []
    while len(chosen) < min(count, len(outcomes)):
        for name in OUTCOMES:
            if waiting.get(name) and len(chosen) < count:
                chosen.append(waiting[name].popleft())
    return chosen


class Pictures:
    """Data URIs, each once; a picture is named by its place in `uris`."""

    def __init__(self) -> None:
        self.uris: list[str] = []
        self._places: dict[Any, int | None] = {}

    def file(self, path: Path, side: int) -> int | None:
        """A picture file, made small; None when it cannot be read."""
        key = (str(path), side)
        if key not in self._places:
            try:
                self._places[key] = self._add(open_image(path), side)
            except UnreadableImage:
                self._places[key] = None
        return self._places[key]

    def views(self, config: dict[str, Any], root: Path, sample_id: str, numbers: Sequence[int]) -> list[int | None]:
        """Views of a sample by their numbers (0: the centre view), as its run drew them; all None without its picture.

        The sample's id starts from the folder `root`.
        """
        recipe = (str(root), sample_id, str(config["views"]), config["seed"])
        missing = [number for number in numbers if (recipe, number) not in self._places]
        try:
            drawn = draw_views(config, open_image(root / sample_id), sample_id, missing) if missing else []
        except UnreadableImage:
            return [None] * len(numbers)
        self._places |= {(recipe, n): self._add(p, VIEW_SIDE) for n, p in zip(missing, drawn, strict=True)}
        return [self._places[recipe, number] for number in numbers]

    def _add(self, picture: Image.Image, side: int) -> int:
        """A picture as a small JPEG inside an address."""
        picture = picture.copy()
        picture.thumbnail((side, side))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=QUALITY, optimize=True)
        self.uris.append("data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode())
        return len(self.uris) - 1


def draw_views(
    config: dict[str, Any], picture: Image.Image, sample_id: str, numbers: Sequence[int]
) -> list[Image.Image]:
    """The views of a picture that a run saw, by number: the same seed draws the same ones."""
    from classification.views import make_views  # and with it torch, which other pages do without
    from clipscore.clip_model import CLIP_MEAN, CLIP_STD

    options, seed = config["views"], sample_seed(config["seed"], config["dataset"], sample_id)
    scale = tuple(options["crop_scale"]) if options["crop_scale"] else None
    how = options["recipe"], scale, options.get("backend", "pil")
    views = make_views(picture, max(numbers) + 1, DRAWN_SIDE, seed, *how)[list(numbers)]  # [n, 3, H, W], normalised
    mean, std = (views.new_tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    pixels = (views * std + mean).mul(255).round().clamp(0, 255).byte()
    return [Image.fromarray(view.permute(1, 2, 0).numpy()) for view in pixels]


class Cards:
    """Makes the cards of a run; `pictures` takes the pictures in."""

    def __init__(self, run: Run, pictures: Pictures) -> None:
        self.run, self.pictures = run, pictures
        self.root = Path(run.about.get("root", run.path))
        self.names: list[str] = run.about.get("class_names", [])
        self.gallery: list[str] = run.about.get("gallery", [])

    def of(self, keys: Sequence[str]) -> list[Card]:
        """The cards of these samples, in this order; the records are read one at a time."""
        wanted = set(keys)
        rows = {row["id"]: row for row in self.run.records() if row["id"] in wanted and "error" not in row}
        tasks = {"classification": self._classification, "retrieval": self._retrieval, "captioning": self._captioning}
        make, cards = tasks[self.run.config["task"]], []
        for row in map(rows.__getitem__, keys):
            sample = read_sample(row)
            known: Card = {"outcome": sample.outcome, "badge": OUTCOMES[sample.outcome], "moved": sample.moved}
            known |= {"losses": list(sample.losses), "rewards": list(sample.rewards)}
            cards.append({"id": row["id"], **known, **make(row)})
        return cards

    def _picture(self, file: str, side: int = SIDE) -> int | None:
        return self.pictures.file(self.root / file, side)

    def _classification(self, row: Row) -> Card:
        def shown(number: int) -> Card:
            name = self.names[number] if number < len(self.names) else f"class {number}"
            return {"text": name, "right": number == row["label"]}

        sides = []
        for name, ending in _sides(row):
            items = [shown(number) for number in row[f"top5{ending}"][:NUM_ANSWERS]]
            items[0]["share"] = row.get(f"confidence{ending}")
            sides.append({"name": name, "right": items[0]["right"], "items": items})
        truth, picture = shown(row["label"])["text"], self._picture(row["id"])
        views = row.get("selected", [])
        entropies = row.get("entropy", [None] * len(views))
        drawn = self.pictures.views(self.run.config, self.root, row["id"], views) if views else []
        return {
            "picture": picture,
            "alt": f"Sample {row['id']}, labelled {truth}",
            "facts": [["label", truth]],
            "sides": sides,
            "views": [
                {"number": number, "entropy": entropy, "picture": view}
                for number, entropy, view in zip(views, entropies, drawn, strict=True)
            ],
            "candidates": _candidates(row, "candidates", shown),
        }

    def _retrieval(self, row: Row) -> Card:
        answers = (row["top10_before"], row["rank_before"]), (row["top10"], row["rank"])
        right = {top[rank - 1] for top, rank in answers if rank <= len(top)}

        def shown(number: int) -> Card:
            text = self.gallery[number] if number < len(self.gallery) else f"item {number}"
            shows_items = self.run.config.get("direction") == "text_to_image"
            picture = {"picture": self._picture(text, ITEM_SIDE)} if shows_items else {}
            return {"text": text, "right": number in right, **picture}

        sides = []
        for name, ending in _sides(row):
            rank, items = row[f"rank{ending}"], [shown(number) for number in row[f"top10{ending}"][:NUM_ANSWERS]]
            note = f"the right answer is at rank {rank:,}"
            sides.append({"name": name, "right": rank == 1, "note": note, "items": items})
        card: Card = {"sides": sides, "candidates": _candidates(row, "candidates", shown)}
        if "text" not in row:
            return card | {"picture": self._picture(row["id"]), "alt": f"Query image {row['id']}"}
        image = row["id"].rpartition("#")[0]
        card |= {"query": row["text"], "picture": self._picture(image)}
        return card | {"alt": f"The right answer, {image}", "under": "the right answer"}

    def _captioning(self, row: Row) -> Card:
        before = [] if "caption_before" not in row else [("Before", row["caption_before"])]
        sides = [*before, ("After" if row.get("loss") else "Caption", row["caption"])]
        return {
            "picture": self._picture(row["id"]),
            "alt": f"Image {row['id']}",
            "sides": [{"name": name, "right": None, "items": [{"text": text}]} for name, text in sides],
            "references": row.get("references", []),
            "candidates": _candidates(row, "captions", lambda text: {"text": text}),
        }


def _sides(row: Row) -> list[tuple[str, str]]:
    """Name of each answer of a record, and how its keys end."""
    return [("Before", "_before"), ("After", "")] if row.get("loss") or row.get("adapted") else [("Answer", "")]


def _candidates(row: Row, field: str, show: Callable[[Any], Card]) -> list[Card]:
    """Candidates, shown by `show`, with their reward at each step that proposed them.

    `field` of the record holds the candidates of each step: [K], or [S, K] over views.
    """
    steps = row.get(field, [])
    found: dict[Any, list[list[tuple[float, float]]]] = {}
    for step, (items, rewards) in enumerate(zip(steps, row.get("rewards", []), strict=True)):
        views = zip(items, rewards, strict=True) if isinstance(items[0], list) else [(items, rewards)]
        for proposed, values in views:
            mean = sum(values) / len(values)
            for item, value in zip(proposed, values, strict=True):
                found.setdefault(item, [[] for _ in steps])[step].append((value, value - mean))
    cards = [{**show(item), "steps": [_cell(pairs) for pairs in by_step]} for item, by_step in found.items()]

    def weight(card: Card) -> tuple[float, float]:  # how often it was proposed, then its reward
        cells = [cell for cell in card["steps"] if cell]
        return sum(cell[2] for cell in cells), sum(cell[0] for cell in cells) / len(cells)

    return sorted(cards, key=weight, reverse=True)


def _cell(pairs: Sequence[tuple[float, float]]) -> list[float] | None:
    """[mean reward, mean distance from the mean of its competitors, how often proposed]; None if it was not."""
    if not pairs:
        return None
    reward, lift = (sum(pair[side] for pair in pairs) / len(pairs) for side in (0, 1))
    return [reward, round(lift, 6), len(pairs)]  # the page rounds; noise is no lift
