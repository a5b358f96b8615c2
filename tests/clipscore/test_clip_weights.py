"""Every form of a weight file, and everything that may be wrong with one."""

from __future__ import annotations

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from clipscore import clip_weights
from clipscore.clip_weights import build_openai_layout, load_clip
from clipscore.devices import autocast_dtype
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
    """Features by open_clip itself."""
    model = build_openai_layout(weights)
    with torch.no_grad():
        return model.encode_image(IMAGES, normalize=True), model.encode_text(open_clip.tokenize(TEXTS), normalize=True)


def assert_loads(name, root, expected):
    clip = load_clip(str(name), root)
    assert not clip.training and not any(p.requires_grad for p in clip.parameters())
    assert len(clip.sha256) == 64 and clip.image_size == 32
    torch.testing.assert_close(clip.encode_images(IMAGES), expected[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(encode_texts(clip, TEXTS), expected[1], atol=1e-6, rtol=0)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated", "ignore::torch.jit.TracerWarning")
def test_openai_archive_by_name(tmp_path, weights, expected):
    (tmp_path / "clip").mkdir()
    model = build_openai_layout(weights)
    torch.jit.trace(model, (IMAGES, open_clip.tokenize(TEXTS)), check_trace=False).save(tmp_path / "clip/ViT-B-16.pt")
    assert_loads("ViT-B/16", tmp_path, expected)


def test_state_dict_and_safetensors(tmp_path, weights, expected):
    torch.save(weights, tmp_path / "tiny.pt")
    save_file(weights, tmp_path / "tiny.safetensors")
    assert_loads("tiny.pt", tmp_path, expected)  # relative to the pretrained folder
    assert_loads(tmp_path / "tiny.safetensors", tmp_path / "nowhere", expected)


def test_open_clip_checkpoint_needs_its_architecture(tmp_path, monkeypatch):
    config = {"embed_dim": 32, "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}}
    config["text_cfg"] = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-arch", config)
    model = open_clip.create_model("tiny-arch").eval()
    checkpoint = {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}
    torch.save(checkpoint, tmp_path / "epoch_3.pt")
    with torch.no_grad():
        expected = (
            model.encode_image(IMAGES, normalize=True),
            model.encode_text(open_clip.tokenize(TEXTS), normalize=True),
        )
    assert_loads(f"tiny-arch:{tmp_path / 'epoch_3.pt'}", tmp_path, expected)  # GELU, as the architecture says
    with pytest.raises(ValueError, match="write arch:file"):
        load_clip("epoch_3.pt", tmp_path)
    (tmp_path / "open_clip").mkdir()
    torch.save(model.state_dict(), tmp_path / "open_clip/tiny-arch-mine.pt")
    monkeypatch.setitem(
        open_clip.pretrained._PRETRAINED, "tiny-arch", {"mine": {"url": "https://nowhere.invalid/x.pt"}}
    )
    assert_loads("tiny-arch/mine", tmp_path, expected)


def test_openai_weights_use_quick_gelu(weights):
    layers = [type(m).__name__ for m in build_openai_layout(weights).modules()]
    assert "QuickGELU" in layers and "GELU" not in layers


def test_weights_are_not_rounded_to_half_precision(weights):
    assert build_openai_layout(weights).visual.class_embedding[0].item() == pytest.approx(0.1, abs=1e-8)


def test_resnet_of_any_input_size(golden):
    clip = golden.clip("RN")
    assert clip.image_size == 64
    with pytest.raises(ValueError, match=r"takes images \[B, 3, 64, 64\], got \[1, 3, 32, 32\]"):
        clip.encode_images(torch.zeros(1, 3, 32, 32, dtype=torch.float64))


def test_bad_names_and_files(tmp_path, weights, monkeypatch):
    with pytest.raises(FileNotFoundError, match="did you mean ViT-B/16"):
        load_clip("ViT-B-16", tmp_path)
    with pytest.raises(ValueError, match="is a folder"):
        load_clip(str(tmp_path), tmp_path)
    torch.save(weights, tmp_path / "whole.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"cut.pt \(5,000 bytes\) cannot be read.*Fetch it again"):
        load_clip("cut.pt", tmp_path)
    torch.save({"ctx": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="holds no CLIP in OpenAI layout"):
        load_clip("other.pt", tmp_path)
    torch.save({k: v for k, v in weights.items() if k != "ln_final.bias"}, tmp_path / "lacks.pt")
    with pytest.raises(ValueError, match=r"lacks.pt.*ln_final.bias"):
        load_clip("lacks.pt", tmp_path)

    def no_internet(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(clip_weights.open_clip, "download_pretrained", no_internet)
    with pytest.raises(FileNotFoundError, match=r"no route to host.*https://.*ViT-L-14.pt.*Tried: .*clip/ViT-L-14.pt"):
        load_clip("ViT-L/14", tmp_path)


def test_precision():
    assert autocast_dtype("auto", torch.device("cpu")) is None
    assert autocast_dtype("auto", torch.device("cuda")) is torch.float16
    assert autocast_dtype("bf16", torch.device("cuda")) is torch.bfloat16
    with pytest.raises(ValueError, match="precision=fp16 needs a CUDA device, got cpu"):
        autocast_dtype("fp16", torch.device("cpu"))
