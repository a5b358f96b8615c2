"""Data sets with one folder per class: find the folders, hold them against the classes, list their images."""

import re
from collections.abc import Sequence
from pathlib import Path

from classification.data.class_names import class_names, wnids
from classification.data.labelled_images import LabelledImage, LabelledImages, Listed
from classification.data.layouts import FolderLayout
from clipscore.data import checks
from clipscore.data.checks import IMAGE_SUFFIXES, file_names, list_some, not_found

WNID = re.compile(r"n\d{8}", re.IGNORECASE)
_NUMBER = re.compile(r"\d{1,4}")


def find_imagenet_set(name: str, data_root: Path, layout: FolderLayout) -> LabelledImages:
    """One of the ImageNet sets, in the first of its layouts that holds class folders; arguments as in `find_dataset`.

    FileNotFoundError with every path tried; ValueError for images that lie flat, and for folders of another set.
    """
    root, folders = _class_root(name, data_root, layout)
    names, classes, kind = class_names(name), wnids(name), "wnid folders"
    numbers = [folder for folder in folders if _NUMBER.fullmatch(folder)]
    _check_kind(name, root, folders, numbers, len(names))
    if numbers:
        classes, kind = [str(label) for label in range(len(names))], "folders named by label"
    images, faults = list_class_folders(name, root, folders, classes)
    if not faults and len(images) != layout.num_images:
        counts = f"{root}: {len(images):,} images, published are {layout.num_images:,}"
        faults = [ValueError(f"{counts}; unpack the original archive again ({layout.source})")]
    found = f"{checks.relative(root, data_root)} ({kind}{checks.origin(root)})"
    return LabelledImages(name, root, found, names, images, layout.num_images, tuple(faults))


def _class_root(name: str, data_root: Path, layout: FolderLayout) -> tuple[Path, list[str]]:
    """The folder with the most class folders, and these; where there are none, any folders, to say what is wrong.

    Whatever else lies beside class folders (lost+found, a devkit) is nobody's class, and often not the user's to move.
    """
    tried = [data_root / root for root in layout.roots]
    folders = {root: checks.subfolders(root) for root in tried if root.is_dir()}
    classes = {root: [f for f in found if WNID.match(f) or _NUMBER.fullmatch(f)] for root, found in folders.items()}
    for found in (classes, folders):
        if any(found.values()):
            return max(found.items(), key=lambda item: len(item[1]))
    for root in folders:
        if num_flat := len(image_files(root)):
            raise ValueError(
                f"{root}: {num_flat} images lie flat here, but the labels of {name} come from one folder per class "
                "(n01440764, ...); sort them, ImageNet's with valprep.sh of soumith/imagenetloader.torch"
            )
    raise not_found(f"data set {name} not found", tried, "folder", data_root, f"get the data from {layout.source}")


def _check_kind(name: str, root: Path, folders: Sequence[str], numbers: Sequence[str], num_classes: int) -> None:
    """Folders named by wnid and by label number: both are in use, a mixture has no meaning."""
    named = sorted(folder for folder in folders if WNID.fullmatch(folder))
    by_number = f"{root}: {len(numbers)} class folders are named by number{list_some(sorted(numbers, key=int))}"
    if numbers and named:
        raise ValueError(f"{by_number}, {len(named)} by wnid{list_some(named)}; unpack {name} into a folder of its own")
    if numbers and name != "imagenet_v2":
        raise ValueError(
            f"{by_number}, expected wnids ({wnids(name)[0]}, ...); unpack the original archive of {name} here, or give "
            "each folder the wnid of its class"
        )
    if str(num_classes) in numbers and "0" not in numbers:
        raise ValueError(
            f"{root}: class folders are numbered from 1 to {num_classes}, expected 0 to {num_classes - 1}, the labels; "
            "unpack the original archive, or rename each folder to its number less 1, beginning with 1"
        )


def list_class_folders(
    name: str, root: Path, folders: Sequence[str], classes: Sequence[str], deep: bool = False
) -> Listed:
    """All images of the class folders in a root, in the order of the folders' names, and what is missing.

    `folders` are those that exist; each stands for one of the `classes`, in label order, or for one in capitals. `deep`
    also takes the images of the folders in them, as torchvision's ImageFolder does.
    ValueError for folders that are no class, or no images at all.
    """
    labels = {folder: label for label, folder in enumerate(classes)}
    class_of = {folder: folder if folder in labels else folder.lower() for folder in folders}
    twins = {folder for folder in folders if class_of[folder] != folder and class_of[folder] in class_of}
    surplus = sorted(folder for folder in folders if class_of[folder] not in labels or folder in twins)
    missing = sorted(labels.keys() - set(class_of.values()))
    faults: list[Exception] = []
    if surplus or missing:
        shown = [folder + ": a file, expected a folder" * (root / folder).is_file() for folder in missing]
        fault = (
            f"{root}: not the class folders of {name}: expected {len(labels)}, found {len(folders)}; {len(missing)} "
            f"missing{list_some(shown)}; {len(surplus)} surplus{list_some(surplus)}; unpack the data again"
        )
        if surplus:
            raise ValueError(f"{fault}, or move what does not belong there")
        faults.append(ValueError(fault))
    files = {folder: image_files(root / folder, deep) for folder in sorted(folders)}
    if empty := [folder for folder, found in files.items() if not found]:
        fault = (
            f"{root}: {len(empty)} of {len(files)} class folders hold no images{list_some(empty)}; images must lie "
            f"{'directly ' * (not deep)}in their class folder and end in {' '.join(IMAGE_SUFFIXES)} (any case); "
            "unpack the data again"
        )
        if len(empty) == len(files):
            raise ValueError(fault)
        faults.append(ValueError(fault))
    images = [
        LabelledImage(f"{folder}/{file}", root / folder / file, labels[class_of[folder]])
        for folder, found in files.items()
        for file in found
    ]
    return images, faults


def image_files(folder: Path, deep: bool = False) -> list[str]:
    """Names of the visible image files in a folder, sorted; `deep`: paths of those in the folders in it too."""
    if deep:
        return checks.list_pictures(folder)
    return sorted(n for n in file_names(folder) if n.lower().endswith(IMAGE_SUFFIXES) and not n.startswith("."))
