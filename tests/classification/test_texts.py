"""What stands for a class: the prompt, templates, or texts from a file."""

import json

import pytest
import torch
from torch.nn import functional as F

from classification.texts import class_texts, encode_classes
from clipscore.text_encoder import encode_texts

NAMES = ["wok", "great_white_shark"]


def test_the_mean_of_unit_features_is_made_unit_again(tiny_clip, tmp_path):
    clip, file = tiny_clip("P"), tmp_path / "texts.json"
    file.write_text(json.dumps({"wok": ["a pan.", "a round pan."], "great white shark": ["a fish."]}))
    texts = class_texts(str(file), "unused", NAMES)
    pans = F.normalize(encode_texts(clip, ["a pan.", "a round pan."]).mean(dim=0), dim=0)
    expected = torch.stack([pans, encode_texts(clip, ["a fish."])[0]])
    torch.testing.assert_close(encode_classes(clip, texts), expected, atol=1e-12, rtol=0)
    single = encode_classes(clip, class_texts("prompt", "a photo of a", NAMES))
    assert torch.equal(single, encode_texts(clip, ["a photo of a wok.", "a photo of a great white shark."]))


def test_templates(tmp_path):
    file = tmp_path / "templates.json"
    file.write_text(json.dumps(["a {} and a {}.", "{}"]))
    assert class_texts(str(file), "", NAMES)[1] == ["a great white shark and a great white shark.", "great white shark"]
    assert class_texts("templates.json", "", NAMES, [tmp_path]) == class_texts(["a {} and a {}.", "{}"], "", NAMES)
    counts = [len(class_texts(source, "", NAMES)[0]) for source in ("templates7", "templates80")]
    assert counts == [7, 80] and "itap of a wok." in class_texts("templates7", "", NAMES)[0]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (["a photo of a {}.", "a photo"], "a list of templates with {} for the class name expected, found 'a photo'"),
        ({"wok": ["a pan."]}, r"no texts for 'great white shark' \(1 classes\)"),
        ({"wok": ["a pan."], "great white shark": ["x"], "bear": ["y"]}, "unknown class 'bear'"),
        ("words", "expected, found 'words'"),
        ([], "expected, found \\[\\]"),
    ],
)
def test_a_file_of_something_else_is_refused(content, match, tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=match):
        class_texts(str(tmp_path / "x.json"), "", NAMES)
    with pytest.raises(FileNotFoundError, match="texts are prompt, templates7, templates80, a list or a JSON file"):
        class_texts("template7", "", NAMES)
