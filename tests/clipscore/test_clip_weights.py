"""Every form of a weight file, and everything that may be wrong with one."""

import hashlib
import json

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from clipscore.clip_model import CLIP_MEAN, CLIP_STD
from clipscore.models.devices import choose_device
from clipscore.models.files import check_clip
from clipscore.models.load import build_openai_layout, load_clip
from clipscore.text_encoder import encode_texts

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
TEXTS = ["a photo of a wok.", "fire truck"]


@pytest.fixture(scope="module")
def weights(golden):
    """State dict of a tiny ViT in OpenAI layout; two values that fp16 cannot hold."""
    state = {key: value.float().contiguous() for key, value in golden.clip("P").backend.state_dict().items()}
    state["visual.class_embedding"][0] = 0.1
    return state


@pytest.fixture(scope="module")
def expected(weights):
    return features(build_openai_layout(weights))


@torch.no_grad()
def features(model):
    """By open_clip itself."""
    return model.encode_image(IMAGES, normalize=True), model.encode_text(open_clip.tokenize(TEXTS), normalize=True)


@pytest.fixture
def openai_file(tmp_path):
    """Where a file of OpenAI's is looked for."""
    (tmp_path / "clip").mkdir()
    return tmp_path / "clip/ViT-B-16.pt"


def assert_loads(name, root, expected):
    clip = load_clip(str(name), root)
    assert not clip.training and not any(p.requires_grad for p in clip.parameters())
    assert len(clip.sha256) == 64 and clip.image_size == 32
    torch.testing.assert_close(clip.encode_images(IMAGES), expected[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(encode_texts(clip, TEXTS), expected[1], atol=1e-6, rtol=0)


def test_another_file_under_an_openai_name_is_refused(tmp_path, openai_file, weights):
    torch.save(weights, openai_file)
    found, size = hashlib.sha256(openai_file.read_bytes()).hexdigest(), openai_file.stat().st_size
    for listed, source in [("5806e77cd80f", "pretrained/checksums.sha256"), ("00ff" * 16, f"{tmp_path}/checksums")]:
        said = rf"{openai_file} \({size:,} bytes\) is not the published ViT-B/16: its sha256 is {found}, expected "
        said += rf"{listed}.*{source}.*bash scripts/fetch_pretrained\.sh\), or name your own file by its path"
        with pytest.raises(ValueError, match=said):
            load_clip("ViT-B/16", tmp_path)
        (tmp_path / "checksums.sha256").write_text(f"{'00FF' * 16} *clip/ViT-B-16.pt\n")
    assert load_clip("clip/ViT-B-16.pt", tmp_path).sha256 == found  # by its path it is the user's own
    (tmp_path / "checksums.sha256").write_text(f"{'00ff' * 16}  clip/RN50.pt\n")
    assert load_clip("ViT-B/16", tmp_path).sha256 == found  # what is not listed is not checked


def test_truncated_files_are_named_before_anything_is_built(tmp_path, openai_file, weights, monkeypatch):
    torch.save(weights, openai_file)
    save_file(weights, tmp_path / "own.safetensors")
    faults = {"ViT-B/16": (openai_file, 9, "the end of its zip archive is missing")}
    faults["own.safetensors"] = tmp_path / "own.safetensors", 1, "Error while deserializing header: .*"
    faults["ViT-B-16:own.safetensors"] = tmp_path / "own.safetensors", 10**9, "it is empty"
    monkeypatch.setattr(torch, "load", None)
    for name, (path, lost, reason) in faults.items():
        check_clip(name, tmp_path) if lost < 10 else None
        path.write_bytes(path.read_bytes()[:-lost])
        said = rf"{path} \({path.stat().st_size:,} bytes\) is truncated: {reason}; move it away and fetch it again"
        for check in (check_clip, load_clip):
            with pytest.raises(ValueError, match=said):
                check(name, tmp_path)
    openai_file.write_text("no zip")
    check_clip("ViT-B/16", tmp_path)  # not cut off; what it is, the reader will say


def test_the_quick_check_downloads_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(open_clip, "download_pretrained", None)
    check_clip("ViT-L/14@336px", tmp_path)
    check_clip("ViT-B-32/laion2b_s34b_b79k", tmp_path)
    for check in (check_clip, load_clip):
        with pytest.raises(FileNotFoundError, match="did you mean ViT-B/16"):
            check("ViT-B-16", tmp_path)
    (tmp_path / "clip/ViT-L-14-336px.pt").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"clip/ViT-L-14-336px\.pt is a folder, expected a weight file"):
        check_clip("ViT-L/14@336px", tmp_path)


def test_state_dict_and_safetensors(tmp_path, weights, expected):
    torch.save(weights, tmp_path / "tiny.pt")
    save_file(weights, tmp_path / "tiny.safetensors")
    assert_loads("tiny.pt", tmp_path, expected)  # relative to the pretrained folder
    assert_loads(tmp_path / "tiny.safetensors", tmp_path / "nowhere", expected)
    model = load_clip("tiny.pt", tmp_path)
    assert {type(m).__name__ for m in model.modules()} & {"GELU", "QuickGELU"} <= {"QuickGELU"}
    assert model.visual.class_embedding[0].item() == pytest.approx(0.1, abs=1e-8)  # not rounded to half precision
    with pytest.raises(ValueError, match=r"takes images \[B, 3, 32, 32\], got \[1, 3, 64, 64\]"):
        model.encode_images(torch.zeros(1, 3, 64, 64))


def test_open_clip_checkpoint_needs_its_architecture(tmp_path, monkeypatch, caplog):
    config = {"embed_dim": 32, "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}}
    config["text_cfg"] = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-arch", config)
    model = open_clip.create_model("tiny-arch").eval()
    checkpoint = {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}
    torch.save(checkpoint, tmp_path / "epoch_3.pt")
    expected = features(model)
    with pytest.raises(ValueError, match="tiny-arch does not tell the mean and deviation"):
        load_clip(f"tiny-arch:{tmp_path / 'epoch_3.pt'}", tmp_path)
    seen = {"preprocess_cfg": {"mean": CLIP_MEAN, "std": CLIP_STD}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(seen))
    assert_loads(f"tiny-arch:{tmp_path / 'epoch_3.pt'}", tmp_path, expected)  # GELU, as the architecture says
    with pytest.raises(ValueError, match=r"write arch:file: ViT-B-32-quickgelu:.*epoch_3\.pt.* and ViT-B-32:"):
        load_clip("epoch_3.pt", tmp_path)
    assert "computes with GELU" not in caplog.text
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-arch-quickgelu", config | {"quick_gelu": True})
    assert_loads(f"tiny-arch:{tmp_path / 'epoch_3.pt'}", tmp_path, expected)
    assert "computes with GELU; weights that began as OpenAI's need tiny-arch-quickgelu:" in caplog.text
    larger = config | {"vision_cfg": {**config["vision_cfg"], "image_size": 64}}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "larger", larger)
    with pytest.raises(ValueError, match=r"another size than larger: visual.positional_embedding \[5, 64\], expected"):
        load_clip(f"larger:{tmp_path / 'epoch_3.pt'}", tmp_path)
    (tmp_path / "open_clip").mkdir()
    torch.save(model.state_dict(), tmp_path / "open_clip/tiny-arch-mine.pt")
    published = {"mine": {"url": "https://nowhere.invalid/x.pt", **seen["preprocess_cfg"]}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-arch", published)
    assert_loads("tiny-arch/mine", tmp_path, expected)


def test_bad_files(tmp_path, weights, monkeypatch):
    (tmp_path / "text.pt").write_text("no weights")
    torch.save({"ctx": torch.zeros(1)}, tmp_path / "other.pt")
    torch.save({k: v for k, v in weights.items() if k != "ln_final.bias"}, tmp_path / "lacks.pt")
    torch.save({f"module.{k}": v for k, v in weights.items()}, tmp_path / "parallel.pt")
    assert load_clip("parallel.pt", tmp_path).image_size == 32
    torch.save(weights | {"visual.proj": weights["visual.proj"] / 0}, tmp_path / "inf.pt")
    torch.save(weights | {"visual.proj": (weights["visual.proj"] * 100).to(torch.int8)}, tmp_path / "int8.pt")
    (tmp_path / "page.pt").write_text("<html><head>404")
    for name, said in [
        (str(tmp_path), "is a folder"),
        ("page.pt", r"page.pt \(15 bytes\) is a web page, of a login or an error"),
        ("text.pt", r"text.pt \(10 bytes\) cannot be read.*if it is damaged, move it away"),
        ("other.pt", "holds no CLIP in OpenAI layout"),
        ("lacks.pt", r"lacks.pt.*ln_final.bias"),
        ("inf.pt", r"inf\.pt: its weights: visual\.proj \(torch\.float32\) is expected in finite floating-point"),
        ("int8.pt", r"int8\.pt: its weights: visual\.proj \(torch\.int8\) is expected in finite floating-point"),
    ]:
        with pytest.raises(ValueError, match=said):
            load_clip(name, tmp_path)

    def no_internet(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(open_clip, "download_pretrained", no_internet)
    with pytest.raises(FileNotFoundError, match=r"no route to host.*https://.*ViT-L-14.pt.*Tried: .*clip/ViT-L-14.pt"):
        load_clip("ViT-L/14", tmp_path)


@pytest.mark.parametrize(("num_devices", "name", "message"), [
    (0, "cuda", "device=cuda, but torch sees no CUDA device .*use cpu"),
    (1, "cuda:1", "device=cuda:1, but torch sees 1 CUDA device, counted from 0 .*use cpu"),
    (2, "cuda:2", "device=cuda:2, but torch sees 2 CUDA devices, counted from 0 .*check the number"),
    (1, "gpu", "device must be auto, cpu, cuda or cuda:N, got 'gpu'"),
])  # fmt: skip
def test_devices_that_are_not_there(monkeypatch, num_devices, name, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: num_devices > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_devices)
    with pytest.raises(ValueError, match=message):
        choose_device(name)
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if num_devices else "cpu")
    if num_devices == 2:
        assert choose_device("cuda:1") == torch.device("cuda:1")
