"""The runs that the demo's tables are made of: the configs of the paper's tables, with what small models need."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from clipscore.config.fields import RunConfig
from clipscore.config.load import load_config
from retrieval.config import RECALL_AT
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
    suffix: str = ""  # of the runs' names, where the overrides make other runs


class Table(NamedTuple):
    """Every method on every line; the first method is what the others are compared with."""

    heading: tuple[str, ...]
    methods: list[Method]
    lines: list[Line]
    places: tuple[int, ...]  # a cell has the share of right answers up to each of these ranks; none: captions
    legend: str
    meaning: str  # what the table says, in a line
    quick: tuple[Line, ...]  # the lines of the quick form, of how many samples, and the methods that it leaves out
    limit: int
    only_full: tuple[str, ...] = ()


SKETCH = Line(("sketch",), "demo/sketch")
CLASSIFICATION = Table(
    ("test set",),
    [
        Method(BASELINE, "classification/zero_shot", PROMPT),
        Method("TPT", "classification/tpt_prompt", [*PROMPT, *VIEWS]),
        Method("KD", "classification/kd", [*PROMPT, *VIEWS, *REWARD, TOWER_LR]),
        Method("zero", "classification/methods/zero", [*PROMPT, *VIEWS]),
        Method("best of K", "classification/methods/best_of_k", [*PROMPT, *VIEWS, *REWARD]),
        Method("zero reward", "classification/methods/zero_reward", [*PROMPT, *VIEWS, *REWARD]),
        Method("RLCF prompt", "classification/rlcf_prompt", [*PROMPT, *VIEWS, *REWARD, PROMPT_STEPS]),
        Method("RLCF encoder", "classification/rlcf_encoder", [*PROMPT, *VIEWS, *REWARD, TOWER_LR]),
        Method("reward model", "classification/zero_shot", [*PROMPT, *REWARD_AS_POLICY]),
    ],
    [Line((style,), f"demo/{style}") for style in STYLES],
    (1,),
    "accuracy in %",
    "A small CLIP that never saw such pictures, alone and adapted to one picture at a time; the last column is the "
    "CLIP whose score is the reward.",
    (SKETCH,),
    100,
    ("zero", "best of K", "zero reward"),
)
# What does the gradient add over asking the teacher? The same views, and rewards by the policy's own weights too.
ASKED = ("best of K", "zero reward", "KD", "RLCF prompt", "RLCF prototypes", "RLCF encoder")
PROTOTYPES = Method("RLCF prototypes", "classification/methods/rlcf_prototypes", [*PROMPT, *VIEWS, *REWARD])
SAME_INFORMATION = Table(
    ("reward", "test set"),
    sorted((m for m in (*CLASSIFICATION.methods, PROTOTYPES) if m.name in ASKED), key=lambda m: ASKED.index(m.name)),
    [
        Line((reward, style), f"demo/{style}", overrides, suffix)
        for reward, overrides, suffix in [
            ("the policy itself", ("reward.models=[{name: demo/policy.pt}]",), "_own"), ("larger CLIP", (), ""),
        ]
        for style in ("sketch", "noise", "contrast", "blur")
    ],
    (1,),
    "accuracy in %",
    "Every method has the same views and asks the same reward model; best of K asks it once and takes no step.",
    (),
    0,
)  # fmt: skip
RETRIEVAL_LINES = [
    Line((style, direction.partition("_")[0]), f"demo_scenes/{style}", (f"direction={direction}",))
    for style in RETRIEVAL_STYLES
    for direction in ("image_to_text", "text_to_image")
]
RETRIEVAL = Table(
    ("scenes", "query"),
    [
        Method(BASELINE, "retrieval/zero_shot", []),
        Method("KD", "retrieval/kd", [*REWARD, TOWER_LR]),
        Method("RLCF", "retrieval/rlcf_coco", [*REWARD, TOWER_LR, CANDIDATES]),
        Method("reward model", "retrieval/zero_shot", REWARD_AS_POLICY),
    ],
    RETRIEVAL_LINES,
    RECALL_AT,
    "recall at 1 / 5 / 10 in %",
    "Pictures look for their captions and captions for their picture; a tower is adapted to each query.",
    tuple(line for line in RETRIEVAL_LINES if line.cells[0] == "noise"),
    100,
)
# Each run writes the captions before adaptation too; the table is made from its records.
DEMO_LM = ["llm=demo/opt", "prefix_length=7", "mapper_layers=2", "decoding.max_new_tokens=24"]
CAPTION_WORDS = [*DEMO_LM, *REWARD, "lr=3e-4", "num_candidates=6", "caption_before=true", "metrics=[clipscore]"]
CAPTION_WORDS += [f"metric_model={JUDGE}"]
CAPTIONERS = [
    Method("CapDec", "captioning/capdec_c2f", [*CAPTION_WORDS, "checkpoint=demo/capdec"]),
    Method("ClipCap", "captioning/clipcap_c2f", [*CAPTION_WORDS, "checkpoint=demo/clipcap"]),
]
CAPTION_LINES = [Line((style,), f"demo_scenes/{style}") for style in CAPTION_STYLES]
CAPTIONING = Table(
    ("scenes", "captioner"),
    CAPTIONERS,
    CAPTION_LINES,
    (),
    "before -> after RLCF, times 100 (BLEU-4 of all captions pooled); in brackets the mean difference per image, with "
    "its 95% bootstrap interval",
    "A mapper in front of a small language model is adapted to each picture; CLIPScore is the reward itself, CIDEr "
    "is not.",
    (CAPTION_LINES[0],),
    60,
)
TABLES = [CLASSIFICATION, RETRIEVAL, CAPTIONING]

Runs = dict[tuple[str, Line], RunConfig]


def demo_runs(words: Sequence[str], tables: Sequence[Table] = tuple(TABLES), full: bool = True) -> Runs:
    """The configuration of every run of these tables; `words` are overrides for all of them.

    `full`: all lines and samples; else the quick form's.
    """
    probe = load_config("configs/classification/zero_shot.yaml", words, config_class, "demo/clean")
    runs = {}
    for table in tables:
        own = [f"data_root={Path(probe.output_root) / DATA_FOLDER}", *([] if full else [f"limit={table.limit}"])]
        methods = [method for method in table.methods if full or method.name not in table.only_full]
        for method, line in itertools.product(methods, table.lines if full else table.quick):
            name = f"name=demo_{method.name}{line.suffix}".replace(" ", "_").replace("-", "_")
            overrides = [*POLICY, name, *own, *method.overrides, *line.overrides, *words]
            runs[method.name, line] = load_config(
                f"configs/{method.config}.yaml", overrides, config_class, line.dataset
            )
    return runs
