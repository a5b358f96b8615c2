"""What the text towers read of each class: the prompt with its name, several templates, or descriptions from a file."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from classification.prompt_learner import class_prompts
from clipscore.clip_model import ClipModel
from clipscore.data.checks import read_json
from clipscore.models.backends import open_clip
from clipscore.text_encoder import encode_texts

TEMPLATES: dict[str, Sequence[Callable[[str], str]]] = {
    "templates7": open_clip.SIMPLE_IMAGENET_TEMPLATES,
    "templates80": open_clip.OPENAI_IMAGENET_TEMPLATES,
}
Texts = list[list[str]]  # of each class


def class_texts(source: str | list[str], prompt: str, class_names: Sequence[str], roots: Sequence[Path] = ()) -> Texts:
    """The texts of each class, at least one. FileNotFoundError, ValueError: the file is not there, or is something
    else.

    Args:
        source: "prompt"; "templates7" or "templates80", CLIP's own; a list of templates with {} for the name; or a
            JSON file with such a list, or with an object that has a list of texts for each class name.
        prompt: words in front of the name, see `class_prompts`.
        class_names: C names; underscores become spaces.
        roots: folders that the file's path may start from, besides the working directory.
    """
    if source == "prompt":
        return [[text] for text in class_prompts(prompt, class_names)]
    names = [name.replace("_", " ") for name in class_names]
    if isinstance(source, str) and source in TEMPLATES:
        return [[template(name) for template in TEMPLATES[source]] for name in names]
    file = "texts" if isinstance(source, list) else find_file(source, roots)
    found = source if isinstance(source, list) else read_json(Path(file))
    templates = _strings(found)
    if templates and all("{}" in text for text in templates):
        return [[text.replace("{}", name) for text in templates] for name in names]
    if not isinstance(found, dict):
        odd = next((text for text in templates or [] if "{}" not in text), found)
        raise ValueError(f"{file}: a list of templates with {{}} for the class name expected, found {odd!r:.80}")
    told = {str(name).replace("_", " "): _strings(texts) for name, texts in found.items()}
    unknown, missing = sorted(told.keys() - set(names)), [name for name in names if not told.get(name)]
    if unknown or missing:
        lacks = f"no texts for {missing[0]!r} ({len(missing)} classes)" if missing else f"unknown class {unknown[0]!r}"
        raise ValueError(f"{file}: {lacks}; a list of texts for each of the {len(names)} classes expected")
    return [told[name] for name in names]


def find_file(source: str, roots: Sequence[Path]) -> Path:
    """The JSON file of `class_texts`."""
    tried = [place / Path(source).expanduser() for place in (Path.cwd(), *roots)]
    found = next((file for file in tried if file.is_file()), None)
    if found is None:
        kinds = f"prompt, {', '.join(TEMPLATES)}, a list or a JSON file"
        raise FileNotFoundError(f"no file {source!r}; texts are {kinds}; tried {', '.join(map(str, tried))}")
    return found


def encode_classes(clip: ClipModel, texts: Texts) -> Tensor:
    """Unit-length features of the classes: of their one text, or the mean over their texts. [C, D]"""
    features = encode_texts(clip, [text for of_class in texts for text in of_class])
    if all(len(of_class) == 1 for of_class in texts):
        return features
    return torch.stack([mean_feature(part) for part in features.split([len(of_class) for of_class in texts])])


def mean_feature(features: Tensor) -> Tensor:
    """Unit-length mean of features, each of unit length first. [t, D] -> [D]. Source: Radford et al. 2021, 3.1.4."""
    return F.normalize(F.normalize(features, dim=-1).mean(dim=0), dim=-1)


def _strings(value: object) -> list[str]:
    """A list of texts that hold something; else nothing."""
    is_list = isinstance(value, list) and all(isinstance(text, str) and text.strip() for text in value)
    return list(value) if is_list else []  # type: ignore[call-overload]
