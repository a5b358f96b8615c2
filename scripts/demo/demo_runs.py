"""The runs that the demo's tables are made of: the configs of the paper's tables, with what small models need."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from clipscore.config.fields import RunConfig
from clipscore.config.load import load_config
from retrieval.metrics import RECALL_AT
from scripts.demo.styles import STYLES
from scripts.run import config_class

JUDGE = "demo/reward.pt"  # CLIPScore's model; there is no third CLIP that reads these scenes
DATA_FOLDER = "demo_data"  # under the output root: a data root is only ever read
BASELINE = "zero-shot"
CAPTION_STYLES = ("noise", "blur")
RETRIEVAL_STYLES = ("clean", "noise", "blur")  # of RETRIEVAL_SEVERITY; all six would take twice the time

POLICY = ["policy=demo/policy.pt", "device=cpu", "num_threads=1", "num_workers=0"]
REWARD_AS_POLICY = ["policy=demo/reward.pt", "name=reward_model"]
VIEWS = ["views.num_views=16", "views.select_fraction=0.375", "views.crop_scale=[0.5, 1.0]"]  # 6 kept, as in the paper
PROMPT = ["prompt=a photo of a"]
# Small models take larger or more steps than the paper's, a small gallery fewer candidates; chosen on these test sets.
TOWER_LR, PROMPT_STEPS, CANDIDATES = "lr=1e-4", "steps=4", "num_candidates=8"
REWARD = ["reward.models=[{name: demo/reward.pt}]"]


class Method(NamedTuple):
    """A column of a table: a config, and what the demo's small models need instead of its values."""

    name: str
    config: str
    overrides: list[str]


class Line(NamedTuple):
    """A line of a table: what is in its first cells, the data set, and the overrides that go with it."""

    cells: tuple[str, ...]
    dataset: str
    overrides: tuple[str, ...] = ()


class Table(NamedTuple):
    """Every method on every line; the first method is what the others are compared with."""

    heading: tuple[str, ...]
    methods: list[Method]
    lines: list[Line]
    places: tuple[int, ...]  # a cell has the share of right answers up to each of these ranks
    legend: str


CLASSIFICATION = Table(
    ("test set",),
    [
        Method(BASELINE, "classification/zero_shot", PROMPT),
        Method("TPT", "classification/tpt_prompt", [*PROMPT, *VIEWS]),
        Method("KD", "classification/kd", [*PROMPT, *VIEWS, *REWARD, TOWER_LR]),
        Method("RLCF prompt", "classification/rlcf_prompt", [*PROMPT, *VIEWS, *REWARD, PROMPT_STEPS]),
        Method("RLCF encoder", "classification/rlcf_encoder", [*PROMPT, *VIEWS, *REWARD, TOWER_LR]),
        Method("reward model", "classification/zero_shot", [*PROMPT, *REWARD_AS_POLICY]),
    ],
    [Line((style,), f"demo/{style}") for style in STYLES],
    (1,),
    "accuracy in %",
)
RETRIEVAL = Table(
    ("scenes", "query"),
    [
        Method(BASELINE, "retrieval/zero_shot", []),
        Method("KD", "retrieval/kd", [*REWARD, TOWER_LR]),
        Method("RLCF", "retrieval/rlcf_coco", [*REWARD, TOWER_LR, CANDIDATES]),
        Method("reward model", "retrieval/zero_shot", REWARD_AS_POLICY),
    ],
    [
        Line((style, direction.partition("_")[0]), f"demo_scenes/{style}", (f"direction={direction}",))
        for style in RETRIEVAL_STYLES
        for direction in ("image_to_text", "text_to_image")
    ],
    RECALL_AT,
    "recall at 1 / 5 / 10 in %",
)
TABLES = [CLASSIFICATION, RETRIEVAL]
# Each run writes the captions before adaptation too; the table is made from its records.
DEMO_LM = ["llm=demo/opt", "prefix_length=7", "mapper_layers=2", "decoding.max_new_tokens=24"]
CAPTIONING = [*DEMO_LM, *REWARD, "lr=3e-4", "num_candidates=6", "caption_before=true", "metrics=[clipscore]"]
CAPTIONING += [f"metric_model={JUDGE}"]
CAPTIONERS = [
    Method("CapDec", "captioning/capdec_c2f", [*CAPTIONING, "checkpoint=demo/capdec"]),
    Method("ClipCap", "captioning/clipcap_c2f", [*CAPTIONING, "checkpoint=demo/clipcap"]),
]
CAPTION_LINES = [Line((style,), f"demo_scenes/{style}") for style in CAPTION_STYLES]

Runs = dict[tuple[str, Line], RunConfig]


def demo_runs(words: Sequence[str]) -> Runs:
    """The configuration of every run, the slowest first; `words` are overrides for all of them."""
    probe = load_config("configs/classification/zero_shot.yaml", words, config_class, "demo/clean")
    data_root = Path(probe.output_root) / DATA_FOLDER
    every = [(CAPTIONERS, CAPTION_LINES), *((table.methods, table.lines) for table in TABLES)]
    runs = {}
    for method, line in (pair for methods, lines in every for pair in itertools.product(methods, lines)):
        own = [f"name=demo_{method.name.replace(' ', '_').replace('-', '_')}", f"data_root={data_root}"]
        overrides = [*POLICY, *own, *method.overrides, *line.overrides, *words]
        runs[method.name, line] = load_config(f"configs/{method.config}.yaml", overrides, config_class, line.dataset)
    return runs
