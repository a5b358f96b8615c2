"""Where context and class name stand in a prompt, prompts that others trained, and texts that stand for a class."""

import json

import pytest
import torch
from torch.nn import functional as F

from classification.prompt_learner import PromptLearner, check_same_clip, load_prompt_start
from classification.texts import class_texts, encode_classes
from clipscore.text_encoder import encode_texts

NAMES = ["wok", "great_white_shark"]
START, END, DOT = 49406, 49407, 269


def token_at(learner, clip, row):
    """Token id, or context number -1, -2, ..., at each place of a built prompt, up to the end token."""
    context = torch.eye(64, dtype=torch.float64)[: learner.num_context] * 1000
    built = learner.build(context, torch.tensor([row]))[0, : int(learner.eot[row]) + 1]
    ids = learner.token_ids[row]
    vectors = clip.text.token_embedding.weight[ids]
    return [
        -1 - int(vector.argmax()) if vector.max() == 1000 else int(ids[(vectors == vector).all(1)][0])
        for vector in built
    ]


def test_a_context_behind_the_name(tiny_clip):
    clip = tiny_clip("P")
    learner = PromptLearner(clip, NAMES, "a photo of a", "front")  # the traces have the other two positions
    assert learner.num_shared == 1
    for row, name in enumerate(NAMES):
        name_ids = clip.tokenize([name.replace("_", " ")])[0].tolist()[1:]
        name_ids = name_ids[: name_ids.index(END)]
        assert token_at(learner, clip, row) == [START, *name_ids, -1, -2, -3, -4, DOT, END]


@pytest.mark.parametrize(("prompt", "position"), [("a [CLS] seen here", "middle"), ("a photo of a", "front")])
@pytest.mark.parametrize("num_words", [74, 90])  # the end token would go, and tokens that are not there be asked for
def test_a_name_that_is_too_long_is_cut_in_front_of_the_end_token(tiny_clip, prompt, position, num_words):
    clip = tiny_clip("P")
    learner = PromptLearner(clip, ["wok " * num_words, "wok"], prompt, position)
    tokens = token_at(learner, clip, 0)
    assert len(tokens) == 77 and tokens[0] == START and tokens[-1] == END
    assert sorted(t for t in tokens if t < 0) == list(range(-learner.num_context, 0))
    assert tokens.count(clip.tokenize(["wok"])[0, 1]) == 77 - 2 - learner.num_context
    assert len(token_at(learner, clip, 1)) == 1 + learner.num_context + 3


def test_context_of_another_length_or_width(tiny_clip):
    clip = tiny_clip("P")
    learner = PromptLearner(clip, NAMES, "a photo of a", context=torch.ones(16, 64))
    assert learner.context.shape == (16, 64) and learner.context.dtype == torch.float64
    assert token_at(learner, clip, 0)[1:17] == list(range(-1, -17, -1))
    with pytest.raises(ValueError, match=r"vectors of width 512, but P has width 64; .*none is published for ViT-L/14"):
        PromptLearner(clip, NAMES, "a photo of a", context=torch.ones(4, 512))
    with pytest.raises(ValueError, match="at least one context word"):
        PromptLearner(clip, NAMES, "")


def test_checkpoints(tmp_path):
    def save(file, **tensors):
        torch.save({"state_dict": tensors}, tmp_path / file)

    (tmp_path / "coop/run/prompt_learner").mkdir(parents=True)
    for epoch in (5, 50):
        save(f"coop/run/prompt_learner/model.pth.tar-{epoch}", ctx=torch.full((4, 64), float(epoch)))
    context, meta_net = load_prompt_start("coop/run", [tmp_path])
    assert context[0, 0] == 50 and meta_net == {}
    with pytest.raises(FileNotFoundError, match=r"no CoOp or CoCoOp checkpoint at coop/other.*Tried: .*coop/other"):
        load_prompt_start("coop/other", [tmp_path])
    save("cut.pt", ctx=torch.ones(4, 64), **{"meta_net.linear1.weight": torch.ones(1)})
    with pytest.raises(ValueError, match="holds a meta network with"):
        load_prompt_start(tmp_path / "cut.pt")
    save("per_class.pt", ctx=torch.ones(3, 4, 64))
    with pytest.raises(ValueError, match=r"a context of shape \[3, 4, 64\], .*one for each class \(CSC\)"):
        load_prompt_start(tmp_path / "per_class.pt")


def test_a_prompt_of_another_clip_is_refused(tmp_path, tiny_clip):
    clip, other = tiny_clip("P"), tiny_clip("R2")
    start = clip.embed_tokens(clip.tokenize([""])[:, :1]).detach()  # [1, 1, W], which CoOp stores of each class
    tensors = {"module.ctx": torch.ones(4, 64), "module.token_prefix": start.half().expand(3, -1, -1)}
    torch.save({"state_dict": tensors}, tmp_path / "coop.pt")
    assert load_prompt_start(tmp_path / "coop.pt")[0].shape == (4, 64)
    check_same_clip(clip, tmp_path / "coop.pt")
    assert other.token_width == 64
    with pytest.raises(ValueError, match=r"coop\.pt was trained with another CLIP than R2: its start token is not the"):
        check_same_clip(other, tmp_path / "coop.pt")


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


@pytest.mark.parametrize(("content", "match"), [
    (["a photo of a {}.", "a photo"], "a list of templates with {} for the class name expected, found 'a photo'"),
    ({"wok": ["a pan."]}, r"no texts for 'great white shark' \(1 classes\)"),
    ({"wok": ["a pan."], "great white shark": ["x"], "bear": ["y"]}, "unknown class 'bear'"),
    ("words", "expected, found 'words'"),
    ([], "expected, found \\[\\]"),
])  # fmt: skip
def test_a_file_of_something_else_is_refused(content, match, tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=match):
        class_texts(str(tmp_path / "x.json"), "", NAMES)
    with pytest.raises(FileNotFoundError, match="texts are prompt, templates7, templates80, a list or a JSON file"):
        class_texts("template7", "", NAMES)
