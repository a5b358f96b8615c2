"""The manifest, the data page, the weights page, checksums.sha256 and the layouts that runs look for say the same."""

import re

import open_clip.pretrained
import pytest

from captioning.config import CaptioningConfig
from classification.data.layouts import LAYOUTS as IMAGE_LAYOUTS
from classification.data.layouts import FolderLayout, SplitLayout
from clipscore.config.load import REPOSITORY
from clipscore.config.yaml12 import parse_yaml
from clipscore.data.caption_layouts import LAYOUTS as CAPTION_LAYOUTS
from scripts.fetch.data import MANIFEST, read_manifest
from scripts.fetch.manifest import FILES

DATA_PAGE = (REPOSITORY / "pretrained/DATA.md").read_text(encoding="utf-8")
WEIGHTS_PAGE = (REPOSITORY / "pretrained/README.md").read_text(encoding="utf-8")
CHECKSUMS = (REPOSITORY / "pretrained/checksums.sha256").read_text()
NEEDED = [file for file in FILES if file.needed_by]


def rows(page: str, cell: str) -> list[list[str]]:
    """The table rows of a page that have this cell."""
    lines = [[part.strip() for part in line.strip("|").split("|")] for line in page.splitlines() if line[:1] == "|"]
    return [cells for cells in lines if f"`{cell}`" in cells]


@pytest.mark.parametrize("file", NEEDED, ids=lambda file: file.path)
def test_each_file_has_its_row_in_the_data_page(file):
    if file.group == "nocaps":  # a sentence instead of a table
        assert f"`{file.path}`, from <{file.address}>" in DATA_PAGE
        return
    [cells] = rows(DATA_PAGE, file.path)
    assert (f"<{file.address}>" in cells) if file.address else (f"({file.page})" in cells[1])
    size = "-" if file.size is None else f"{file.size:,}"
    assert file.is_annotation or size in cells
    assert file.group == "splits" or (file.checksum or "-").replace(":", " ") in cells
    if not file.is_annotation:
        folder = "opt-125m/" if file.group == "opt" else re.split("/prompt_learner|/ckpt-latest", file.path)[0]
        assert f"`{folder}" in WEIGHTS_PAGE and ((file.size or 0) <= 1_000 or size in WEIGHTS_PAGE)


def test_no_other_weights_and_checksums_are_on_the_pages():
    section = DATA_PAGE[DATA_PAGE.index("## Weights") : DATA_PAGE.index("## ImageNet")]
    paths = set(re.findall(r"^\| `([^`]+)`", section, re.MULTILINE))
    assert paths == {file.path for file in NEEDED if not file.is_annotation}
    sums = {file.path: file.checksum for file in FILES if (file.checksum or "").startswith("sha256")}
    assert sums == {path: f"sha256:{found}" for found, path in map(str.split, CHECKSUMS.splitlines())}


@pytest.mark.parametrize("name", IMAGE_LAYOUTS)
def test_each_data_set_is_in_the_data_page_with_its_folder_and_count(name):
    layout = IMAGE_LAYOUTS[name]
    if name == "imagenet_c":
        assert "`$DATA/imagenet-c/<corruption>/<severity>/<wnid>/`" in DATA_PAGE and "50,000 images each" in DATA_PAGE
        return
    [cells] = rows(DATA_PAGE, name)
    assert cells[1] == f"{layout.num_images:,}"
    if isinstance(layout, FolderLayout):
        folder = re.fullmatch(r"`\$DATA/(.+?)/<.*>/`", cells[2])
        assert folder and folder[1] in layout.roots
    else:
        folder = cells[2].strip("`/")
        images = [f"{layout.folders[0]}/{inner or 'cars_test'}" for inner in layout.image_folders]
        assert folder in images


def test_annotation_files_go_where_runs_look_for_them():
    for file in FILES:
        if layout := CAPTION_LAYOUTS.get(file.group):
            split = re.sub(r".*_(\w+)\.json", r"\1", file.path)
            names = [name.format(split=split) for name in layout.annotation_files]
            assert {file.path, *file.other_paths} <= {f"{at}/{name}" for at in layout.folders for name in names}
    splits = {file.path for file in FILES if file.group == "splits"}
    layouts = [layout for layout in IMAGE_LAYOUTS.values() if isinstance(layout, SplitLayout)]
    assert splits == {f"{at.folders[0]}/{at.split_file}" for at in layouts if at.split_file.endswith(".json")}


def test_every_weight_that_a_config_names_is_in_the_manifest():
    paths = {path for file in NEEDED for path in (file.path, *file.other_paths)}
    for config in sorted((REPOSITORY / "configs").rglob("*.yaml")):
        values, _ = parse_yaml(config.read_text(encoding="utf-8"))
        reward = values.get("reward")
        models = reward.get("models", []) if isinstance(reward, dict) else []
        models = [models] if isinstance(models, str) else models
        names = [model if isinstance(model, str) else model["name"] for model in models]
        wanted = [f"clip/{re.sub('[/@]', '-', name)}.pt" for name in [values.get("policy"), *names] if name]
        wanted += [f"{values['checkpoint']}/ckpt-latest.pt"] if values.get("checkpoint") else []
        wanted += [start] if (start := str(values.get("prompt_start", ""))).startswith("co") else []
        assert paths.issuperset(wanted), config
    assert CaptioningConfig.model_fields["metric_model"].default == "ViT-B/32" and "clip/ViT-B-32.pt" in paths


def test_openai_addresses_are_those_of_open_clip():
    known = {config["url"] for tags in open_clip.pretrained._PRETRAINED.values() for config in tags.values()}
    ours = {file.address for file in FILES if file.group == "clip"}
    assert ours == {url for url in known if "openaipublic" in url}


def test_each_archive_is_in_the_data_page():
    manifest = read_manifest(MANIFEST)
    assert set(manifest) == {*IMAGE_LAYOUTS, *(name for name in CAPTION_LAYOUTS if "/" not in name)}
    for item in (item for sources in manifest.values() for source in sources for item in source):
        remote = item.as_remote("")
        assert "prompt_learning_dataset" in (item.address or "") or remote.path in DATA_PAGE, item
        assert f"{item.size or 0:,}" in DATA_PAGE and (item.checksum or "").partition(":")[2] in DATA_PAGE, item
        assert item.file in {file.path for file in FILES} | {None}
