"""CLIPs as others store them, tiny, with random weights: transformers' and open_clip's folders, SigLIP-like, ResNet."""

import json
import shutil
from pathlib import Path

import huggingface_hub
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from captioning.build import reward_views
from clipscore.clip_model import CLIP_MEAN, CLIP_STD, ClipModel
from clipscore.config.load import load_config
from clipscore.data.caption_sets import CaptionedImage
from clipscore.data.images import model_input
from clipscore.data.open_image import open_image
from clipscore.metrics.captions import encode_image_files
from clipscore.models.backends import with_towers
from clipscore.models.descriptions import describe, from_transformers
from clipscore.models.files import check_clip
from clipscore.models.load import load_clip
from clipscore.reward import ClipReward
from clipscore.text_encoder import encode_texts
from retrieval.gallery import FeatureCache, image_features
from scripts import rewards, run

TEXTS = ["a photo of a wok.", "fire truck"]
HALF = [0.5, 0.5, 0.5]
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
SIGLIP = {
    "embed_dim": 64, "init_logit_bias": -10, "custom_text": True,
    "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none"},
    "text_cfg": {
        "context_length": 16, "vocab_size": 8, "hf_tokenizer_name": "timm/nowhere", "width": 64, "heads": 1,
        "layers": 1, "no_causal_mask": True, "proj_bias": True, "pool_type": "last",
        "tokenizer_kwargs": {"clean": "canonicalize"},
    },
}  # fmt: skip
RESNET = {"embed_dim": 32, "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16}, "text_cfg": TEXT}


def save_folder(folder: Path, towers: dict, seen: dict, state: dict | None = None) -> str:
    """A model in open_clip's form; random weights if none are given."""
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": towers, "preprocess_cfg": seen}))
    torch.manual_seed(0)
    with_towers(towers)
    state = state or open_clip.create_model(f"local-dir:{folder}", load_weights=False).state_dict()
    save_file({key: value.clone() for key, value in state.items()}, folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> dict[str, str]:
    """The same weights as transformers' folder, open_clip's folder in the place of a hub's, and OpenAI's file."""
    root = tmp_path_factory.mktemp("clips")
    tower = {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 1, "num_hidden_layers": 2}
    torch.manual_seed(0)
    vision = {**tower, "image_size": 32, "patch_size": 8}
    config = CLIPConfig(text_config=dict(tower), vision_config=vision, projection_dim=32)
    CLIPModel(config).save_pretrained(root / "theirs")
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(root / "theirs")
    state = from_transformers(load_file(root / "theirs/model.safetensors"))
    vision = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8}
    towers = {"embed_dim": 32, "quick_gelu": True, "vision_cfg": vision, "text_cfg": TEXT | {"layers": 2}}
    save_folder(root / "org/name", towers, {"mean": list(CLIP_MEAN), "std": list(CLIP_STD)}, state)
    torch.save(state, root / "openai.pt")
    return {"root": str(root), "theirs": f"local-dir:{root / 'theirs'}", "hub": "hf-hub:org/name", "file": "openai.pt"}


@pytest.fixture(scope="module")
def siglip(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("siglip") / "model"
    words = {word: number for number, word in enumerate(["<pad>", "</s>", "a", "photo", "of", "wok", "fire", "truck"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    name = save_folder(folder, SIGLIP, {"mean": HALF, "std": HALF, "resize_mode": "squash", "interpolation": "bicubic"})
    tokenizer.save(str(folder / "tokenizer.json"))
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(kind))
    return name


@pytest.fixture
def picture(tmp_path) -> Path:
    pixels = torch.randint(256, (90, 200, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    Image.fromarray(pixels.numpy()).resize((200, 90)).save(tmp_path / "wide.png")
    return tmp_path / "wide.png"


def test_one_clip_in_three_layouts_gives_the_same_features(clips, picture):
    loaded = [load_clip(clips[kind], clips["root"]) for kind in ("theirs", "hub", "file")]
    theirs = CLIPModel.from_pretrained(Path(clips["root"], "theirs")).eval()
    image, ids = model_input(open_image(picture), 32)[None], open_clip.tokenize(TEXTS)
    with torch.no_grad():
        vision, text = theirs.vision_model(image).pooler_output, theirs.text_model(ids).pooler_output
        expected = F.normalize(theirs.visual_projection(vision)), F.normalize(theirs.text_projection(text))
    for clip in loaded:
        [rewarded] = ClipReward([clip], [1.0]).encode_images(image)
        found = [clip.encode_images(image), rewarded, encode_texts(clip, TEXTS)]
        torch.testing.assert_close(found, [expected[0], *expected], atol=1e-6, rtol=0)
        torch.testing.assert_close(clip.logit_scale, theirs.logit_scale.exp())
    assert len({clip.sha256 for clip in loaded}) == 3


def own_features(name: str, picture: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """By open_clip itself, from the file and the texts on."""
    model, preprocess = open_clip.create_model_from_pretrained(name)
    with torch.no_grad():
        image = model.eval().encode_image(preprocess(Image.open(picture))[None], normalize=True)
        return image, model.encode_text(open_clip.get_tokenizer(name)(TEXTS), normalize=True)


def test_a_siglip_sees_files_and_texts_as_open_clip_does(siglip, clips, picture):
    clip, policy = load_clip(siglip, "/nowhere"), load_clip(clips["file"], clips["root"])
    image, texts = own_features(siglip, picture)
    torch.testing.assert_close(encode_texts(clip, TEXTS), texts, atol=1e-6, rtol=0)
    features, _ = encode_image_files(clip, {"a": picture})  # CLIPScore
    items = [CaptionedImage("a", picture, ("b",), 0)]
    gallery = image_features([policy, clip], items, policy.form, FeatureCache(None), 0)
    seen = model_input(open_image(picture), policy.form)[None]
    views = reward_views(seen, policy, [policy, clip], picture)  # captioning
    rewarded = ClipReward([policy, clip], [0.5, 0.5]).encode_images(views)
    for found in (features["a"][None], gallery[1], rewarded[1]):
        torch.testing.assert_close(found, image, atol=1e-6, rtol=0)
    torch.testing.assert_close(rewarded[0], gallery[0])
    score = ClipReward([clip], [1.0]).score([image], [texts[None]])
    torch.testing.assert_close(score, 2.5 * (image @ texts.T).clamp(min=0))


def test_in_classification_it_scores_the_policys_views_renormalised(siglip):
    clip, views = load_clip(siglip, "/nowhere"), torch.randn(2, 3, 32, 32)
    [found] = ClipReward([clip], [1.0]).encode_images(views)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    large = F.interpolate(views, (160, 160), mode="bicubic", align_corners=True)
    with torch.no_grad():
        expected = clip.backend.encode_image((large * std + mean - 0.5) / 0.5, normalize=True)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_resnet_of_open_clip_with_a_mean_of_its_own(tmp_path, picture):
    name = save_folder(tmp_path / "resnet", RESNET, {"mean": HALF, "std": HALF, "interpolation": "bilinear"})
    clip, (image, texts) = load_clip("resnet", tmp_path), own_features(name, picture)
    found = clip.encode_images(model_input(open_image(picture), clip.form)[None])
    torch.testing.assert_close(found, image, atol=1e-6, rtol=0)
    torch.testing.assert_close(encode_texts(clip, TEXTS), texts, atol=1e-6, rtol=0)


def test_what_a_model_can_is_said_before_weights_are_read(siglip, clips, demo_data, monkeypatch):
    monkeypatch.setattr("clipscore.models.group.load_clip", None)
    root = Path(clips["root"])
    assert describe("hf-hub:org/name", root).has_causal_text and not describe(siglip, root).has_causal_text
    words = ["dataset=demo/clean", f"data_root={demo_data}", "device=cpu"]
    words += [f"policy={siglip}", f"reward.models={siglip}"]
    files = (f"configs/classification/rlcf_{tune}.yaml" for tune in ("prompt", "encoder"))
    prompt, encoder = (load_config(file, words, run.config_class) for file in files)
    run.task_class(encoder).check(encoder)
    with pytest.raises(ValueError, match=r"policy=local-dir:.*text tower is not causal.*serves as reward, teacher"):
        run.task_class(prompt).check(prompt)


def test_a_mean_is_never_guessed(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"x")
    assert describe("ViT-B-32:a.pt", tmp_path).seen["mean"] == list(CLIP_MEAN)  # all its tags say so
    assert describe("ViT-L-14/laion2b_s32b_b82k:a.pt", tmp_path).seen["mean"] == HALF
    for arch, ways in [("ViT-L-14", "2 ways"), ("ViT-S-16", "no ways")]:
        with pytest.raises(ValueError, match=f"{arch} does not tell the mean and deviation .* {ways} are known; write"):
            describe(f"{arch}:a.pt", tmp_path)
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"preprocess_cfg": {"mean": HALF, "std": HALF}}))
    assert describe("ViT-L-14:a.pt", tmp_path).seen["mean"] == HALF


def test_what_is_no_clip(tmp_path, clips, siglip, monkeypatch):
    root = Path(clips["root"])
    shutil.copytree(root / "theirs", tmp_path / "bert")
    config = json.loads((root / "theirs/config.json").read_text())
    (tmp_path / "bert/config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    shutil.copytree(root / "theirs", tmp_path / "unseen")
    (tmp_path / "unseen/preprocessor_config.json").unlink()
    shutil.copytree(siglip.partition(":")[2], tmp_path / "mute")
    (tmp_path / "mute/tokenizer.json").unlink()
    (tmp_path / "mute/tokenizer_config.json").unlink()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/config.json").write_text(json.dumps(config))

    def not_there(*args: object, **options: object) -> None:
        raise huggingface_hub.errors.HFValidationError("404: no such repository")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", not_there)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for name, kind, said in [
        ("bert", ValueError, "is a bert, and of transformers' layout only CLIP is read"),
        ("unseen", ValueError, "has no image_mean and image_std, which are not guessed"),
        ("mute", FileNotFoundError, "no tokenizer timm/nowhere: not in .*; put its tokenizer.json at"),
        ("local-dir:none", FileNotFoundError, "no open_clip_config.json or config.json in .*none"),
        ("empty", FileNotFoundError, "empty holds no weights, expected one of open_clip_model.safetensors"),
        ("hf-hub:no/model", FileNotFoundError, "no model no/model on the Hugging Face hub .404: no such repository"),
    ]:
        with pytest.raises(kind, match=said):
            load_clip(name, tmp_path)
    check_clip("hf-hub:no/model", tmp_path)  # it may be there
    assert isinstance(load_clip("theirs", root), ClipModel)  # a folder without a word in front


def test_rewards_of_rising_strength_in_one_table(roots, capsys):
    words = ["--config", "configs/classification/rlcf_encoder.yaml", "dataset=demo/sketch"]
    words += ["policy=demo/policy.pt", "limit=3", "device=cpu", "views.num_views=4", "views.select_fraction=0.5"]
    assert rewards.main([*words, "num_workers=0", "--rewards", "demo/policy.pt,demo/reward.pt"]) == 0
    lines = capsys.readouterr().out.splitlines()
    named = [f"demo/sketch, reward demo/{name}.pt" for name in ("policy", "reward")]
    assert "accuracy_before" in lines[0] and [line.split("  ")[0] for line in lines[1:]] == named
