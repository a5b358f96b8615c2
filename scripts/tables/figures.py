"""What the records of a run say: how many samples there are, and their accuracy or recall; caption metrics.

Accuracy and recall are computed from the records. Caption metrics need Java and models, so they come from summary.json,
which is believed only when it is about as many samples as there are good records.
"""

from __future__ import annotations

from dataclasses import dataclass

from classification.data import layouts as dataset_layouts
from clipscore.data import caption_layouts
from clipscore.metrics.coco import COCO_METRICS
from retrieval.metrics import recalls
from scripts.runs.read import Row, Run

CAPTION_COLUMNS = (*(column for columns in COCO_METRICS.values() for column in columns), "clipscore", "refclipscore")


@dataclass(frozen=True)
class Figures:
    """A run in numbers.

    Attributes:
        run: the run.
        num_samples: good records.
        published: how many samples the column of the paper's table has; None where nothing is published.
        values: metric -> figure, in % (caption metrics times 100).
        missing: why there are no caption metrics; None where there are some, and in the other tasks.
    """

    run: Run
    num_samples: int
    published: int | None
    values: dict[str, float]
    missing: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it has as many samples as the paper's column; finished, where nothing is published."""
        return self.run.summary is not None if self.published is None else self.num_samples == self.published


def measure(run: Run) -> Figures:
    """Read a run's records.

    Raises:
        ValueError: a record is damaged.
    """
    task = run.config["task"]
    published = published_samples(task, str(run.config["dataset"]), run.config.get("direction"))
    kept = list(run.collect(KEPT[task]).values())
    if not kept:
        return Figures(run, 0, published, {})
    if task == "captioning":
        return Figures(run, len(kept), published, *caption_metrics(run, len(kept)))
    values = recalls(kept) if task == "retrieval" else {"accuracy": 100 * sum(kept) / len(kept)}
    return Figures(run, len(kept), published, values)


def is_right(row: Row) -> bool:
    """Whether the first answer of a classification or retrieval record is right."""
    return row["rank"] == 1 if "rank" in row else row["top5"][0] == row["label"]


KEPT = {"classification": is_right, "retrieval": lambda row: row["rank"], "captioning": lambda row: None}


def published_samples(task: str, dataset: str, direction: str | None) -> int | None:
    """How many samples the paper's column has: images, or captions where texts are the queries; None: not published."""
    if task == "classification":
        known = dataset.partition("/")[0] in dataset_layouts.LAYOUTS
        return dataset_layouts.find_layout(dataset).num_images if known else None
    if dataset not in caption_layouts.LAYOUTS:
        return None
    test = caption_layouts.find_layout(dataset).published["test"]
    return test.num_captions if direction == "text_to_image" else test.num_images


def caption_metrics(run: Run, num_samples: int) -> tuple[dict[str, float], str | None]:
    """The caption metrics of a summary that is about so many samples, or why they are not taken."""
    if run.summary is None:
        return {}, "caption metrics come with the last caption"
    if run.summary["num_samples"] != num_samples:
        return {}, f"the caption metrics are of {run.summary['num_samples']} captions, the records of {num_samples}"
    names = [f"{name}{ending}" for name in CAPTION_COLUMNS for ending in ("_before", "")]
    return {name: float(run.summary[name]) for name in names if name in run.summary}, None
