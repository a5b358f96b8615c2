"""Names, folders, split files and published sizes of the built-in classification data sets."""

import difflib
from dataclasses import dataclass, replace

from clipscore.data.checks import demo_id, unknown_data_set

CORRUPTIONS = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow",
    "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
    "speckle_noise", "gaussian_blur", "spatter", "saturate",
)  # fmt: skip
SEVERITIES = ("1", "2", "3", "4", "5")

COOP_PAGE = "https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md"


@dataclass(frozen=True)
class FolderLayout:
    """A data set with one folder per class, named by wnid (or by label number in ImageNet-V2)."""

    roots: tuple[str, ...]  # under the data root, may hold the class folders; of equal ones the first is taken
    num_images: int  # published
    num_classes: int
    source: str  # page that offers the data


@dataclass(frozen=True)
class SplitLayout:
    """A data set whose test images are listed in a split file."""

    folders: tuple[str, ...]  # under the data root, may hold the split file; tried in this order
    image_folders: tuple[str, ...]  # beside the split file, the listed paths may be relative to them
    split_file: str
    num_images: int  # published number of test images
    num_classes: int
    source: str = COOP_PAGE  # page that offers the data
    other_files: tuple[str, ...] = ()  # that list the test images in another form


_V2 = "imagenetv2-matched-frequency-format-val"

LAYOUTS: dict[str, FolderLayout | SplitLayout] = {
    "imagenet": FolderLayout(
        ("ImageNet/val", "imagenet/images/val", "imagenet/val", "imagenet2012/val"),
        50_000, 1000, "https://image-net.org/download",
    ),
    "imagenet_a": FolderLayout(
        ("imagenet-a", "imagenet-adversarial/imagenet-a", "imagenet-a/imagenet-a"),
        7_500, 200, "https://github.com/hendrycks/natural-adv-examples",
    ),
    "imagenet_v2": FolderLayout(
        (_V2, f"{_V2}/{_V2}", f"imagenetv2/{_V2}", f"imagenetv2/{_V2}/{_V2}", f"imagenet-v2/{_V2}",
         f"imagenet-v2/{_V2}/{_V2}", "imagenetv2", "imagenet-v2"),
        10_000, 1000, "https://github.com/modestyachts/ImageNetV2",
    ),
    "imagenet_r": FolderLayout(
        ("imagenet-r", "imagenet-rendition/imagenet-r", "imagenet-r/imagenet-r"),
        30_000, 200, "https://github.com/hendrycks/imagenet-r",
    ),
    "imagenet_sketch": FolderLayout(
        ("ImageNet-Sketch", "ImageNet-Sketch/sketch", "imagenet-sketch/images", "imagenet-sketch",
         "imagenet-sketch/sketch", "sketch"),
        50_889, 1000, "https://github.com/HaohanWang/ImageNet-Sketch",
    ),
    "imagenet_c": FolderLayout(
        ("imagenet-c", "ImageNet-C"),  # corruption and severity follow
        50_000, 1000, "https://zenodo.org/records/2235448",
    ),
    "caltech101": SplitLayout(
        ("caltech-101", "caltech101"), ("101_ObjectCategories", ""), "split_zhou_Caltech101.json", 2_465, 100
    ),
    "oxford_pets": SplitLayout(
        ("oxford_pets", "oxford-iiit-pet"), ("images",), "split_zhou_OxfordPets.json", 3_669, 37
    ),
    "stanford_cars": SplitLayout(
        ("stanford_cars", "stanford_cars/stanford_cars"), ("", "cars_test"), "split_zhou_StanfordCars.json", 8_041, 196,
        other_files=("cars_test_annos_withlabels.mat",),
    ),
    "flower102": SplitLayout(
        ("oxford_flowers", "flower102", "flowers-102"), ("jpg",), "split_zhou_OxfordFlowers.json", 2_463, 102
    ),
    "food101": SplitLayout(("food-101", "food101"), ("images",), "split_zhou_Food101.json", 30_300, 101),
    "aircraft": SplitLayout(
        ("fgvc_aircraft", "fgvc-aircraft-2013b/data"), ("images",), "images_variant_test.txt", 3_333, 100
    ),
    "sun397": SplitLayout(("sun397",), ("SUN397", "images"), "split_zhou_SUN397.json", 19_850, 397),
    "dtd": SplitLayout(
        ("dtd", "dtd/dtd"), ("images", "dtd/images"), "split_zhou_DescribableTextures.json", 1_692, 47
    ),
    "eurosat": SplitLayout(("eurosat",), ("2750", "images"), "split_zhou_EuroSAT.json", 8_100, 10),
    "ucf101": SplitLayout(("ucf101",), ("UCF-101-midframes", "images"), "split_zhou_UCF101.json", 3_783, 101),
}  # fmt: skip

ALIASES = {
    "i": "imagenet", "a": "imagenet_a", "v": "imagenet_v2", "r": "imagenet_r", "k": "imagenet_sketch",
    "c": "imagenet_c", "pets": "oxford_pets", "cars": "stanford_cars",
}  # fmt: skip


def canonical_name(name: str) -> str | None:
    """The built-in data set that a name stands for: `A` -> `imagenet_a`, `C/Fog/3` -> `imagenet_c/fog/3`; or None.

    Names are read in any case, and `-` as `_`. ValueError for an ImageNet-C id without a known corruption and
    severity, and for a demo id without a style.
    """
    head, *rest = name.strip().lower().split("/")
    head = head.replace("-", "_")
    head = ALIASES.get(head, head)
    if head == "demo":
        return demo_id(name, "demo", "/".join(rest))
    if head != "imagenet_c":
        return head if head in LAYOUTS and not rest else None
    if len(rest) == 2 and rest[0] in CORRUPTIONS and rest[1] in SEVERITIES:
        return "/".join([head, *rest])
    [nearest] = difflib.get_close_matches(rest[0], CORRUPTIONS, n=1, cutoff=0) if rest else ["fog"]
    near = f"nearest corruption: {nearest}; valid: {', '.join(CORRUPTIONS)}"
    raise ValueError(f"data set {name!r}: expected imagenet_c/<corruption>/<severity 1-5>; {near}")


def find_layout(name: str) -> FolderLayout | SplitLayout:
    """Layout of a built-in data set, given by its canonical id; ImageNet-C's corruption and severity are filled in.

    ValueError when no layout is known: an unknown name, or a demo set, which has no published size.
    """
    head, *rest = name.split("/")
    if head not in LAYOUTS:
        raise unknown_name(name)
    layout = LAYOUTS[head]
    if isinstance(layout, FolderLayout) and head == "imagenet_c":
        return replace(layout, roots=tuple("/".join([root, *rest]) for root in layout.roots))
    return layout


def unknown_name(name: str) -> ValueError:
    """The error for a data set id that is not built in."""
    ids = {key: key for key in LAYOUTS} | {alias: key for alias, key in ALIASES.items() if len(alias) > 1}
    valid = [*(key for key in LAYOUTS if key != "imagenet_c"), "imagenet_c/<corruption>/<1-5>", "demo/<style>"]
    return unknown_data_set(name, ids, valid, "images=DIR")
