"""Find a classification data set on disk and list its images with their labels.

Everything is checked before the first image is opened: folders against classes, listed images against files, counts
against the published ones.
"""

from pathlib import Path

from classification.config import DatasetFiles
from classification.data import layouts
from classification.data.class_folders import WNID, find_imagenet_set, image_files, list_class_folders
from classification.data.class_names import check_distinct, names_of_wnids, read_class_names
from classification.data.labelled_images import LabelledImage, LabelledImages
from classification.data.layouts import FolderLayout, find_layout
from classification.data.split_files import find_split_set, listed_set, names_in_split, read_split
from clipscore.data import checks

__all__ = ["LabelledImage", "LabelledImages", "find_dataset"]

_DEMO_SPLIT = "split_zhou_Demo.json"
_PARTS = {"train", "val", "valid", "validation", "test"}  # of a data set: no classes


@checks.explain_permission_error()
def find_dataset(
    name: str, data_root: Path, files: DatasetFiles | None = None, partial: bool = False
) -> LabelledImages:
    """List the test images of a data set with their labels. Source: paper Sec. 4.1; official TPT/data/datautils.py.

    Args:
        name: a built-in id or its official letter, in any case (`imagenet_a`, `A`, `imagenet_c/fog/3`, `dtd`,
            `demo/sketch`), or any other name together with `files`, which say where the user's own set lies.
        partial: go on without class folders and images that are missing, and with another number than the published
            one; labels stay those of all classes.

    ValueError: unknown name; class folders, split file, class names or counts that do not fit; no images.
    FileNotFoundError, PermissionError: the data, or a listed image, is not there, or may not be read.
    """
    data_root = Path(data_root).expanduser()
    name = checks.choose_name(name, layouts, files is not None)
    data = _built_in_set(name, data_root) if files is None else _own_set(name, data_root, files)
    checks.raise_or_warn(data.faults, partial)
    return data


def _built_in_set(name: str, data_root: Path) -> LabelledImages:
    if name.startswith("demo/"):
        return _demo_set(name, data_root)
    layout = find_layout(name)
    if isinstance(layout, FolderLayout):
        return find_imagenet_set(name, data_root, layout)
    return find_split_set(name, data_root, layout)


def _demo_set(name: str, data_root: Path) -> LabelledImages:
    folder = data_root / name
    split_file, names_file = folder / _DEMO_SPLIT, folder / "classnames.txt"
    if split_file.is_file():
        names, entries = names_in_split(split_file), read_split(split_file, "test")
        return listed_set(name, data_root, split_file, [folder / "images", folder], names, entries)
    if names_file.is_file():
        return _own_folders(name, data_root, folder, names_file)
    mend = "`bash scripts/quickstart.sh` draws them; then give data_root=output/demo_data"
    tried, mend = [split_file, names_file], checks.describe_styles(folder.parent) + mend
    raise checks.not_found(f"data set {name} not found", tried, "file", data_root, mend)


def _own_set(name: str, data_root: Path, files: DatasetFiles) -> LabelledImages:
    root = checks.resolve(files.images, data_root, "dataset_files.images", "folder")
    if files.class_names and files.split_file:
        raise ValueError("dataset_files: got class_names and split_file, expected one; a split file has class names")
    if files.split_file:
        split_file = checks.resolve(files.split_file, data_root, "dataset_files.split_file", "json file")
        entries = read_split(split_file, files.split)
        return listed_set(name, data_root, split_file, [root], names_in_split(split_file), entries)
    names = files.class_names
    names_file = checks.resolve(names, data_root, "dataset_files.class_names", "file") if names else None
    return _own_folders(name, data_root, root, names_file)


def _own_folders(name: str, data_root: Path, root: Path, names_file: Path | None) -> LabelledImages:
    folders = checks.subfolders(root)
    is_alone = len(folders) == 1 and not names_file  # any answer would be right
    if is_alone or set(map(str.lower, folders)) <= _PARTS:
        found = f"no class folders (images directly in it: {len(image_files(root))})"
        found = f"instead of folders of two or more classes there is only {', '.join(folders)}" if folders else found
        raise ValueError(f"{root}: {found}; put the images of each class into a folder of its own or give a split file")
    if names_file:
        name_of, kind = read_class_names(names_file, folders), f", {names_file.name}"
    elif any(map(WNID.fullmatch, folders)):
        name_of, kind = names_of_wnids(root, folders), ", named by ImageNet's wnids"
    else:
        name_of, kind = {folder: folder for folder in folders}, ""
        check_distinct(str(root), folders)
    images, faults = list_class_folders(name, root, folders, list(name_of), deep=True)
    layout = f"{checks.relative(root, data_root)} (class folders{kind})"
    return LabelledImages(name, root, layout, list(name_of.values()), images, faults=tuple(faults))
