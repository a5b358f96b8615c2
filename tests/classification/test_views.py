"""Views against torchvision's reference pipeline, their independence of everything but the seed, AugMix by hand."""

import random
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import v2

import classification.augmix as augmix_module
from classification.augmix import OPERATIONS, augmix
from classification.task import Sample
from classification.views import draw_views, make_views
from clipscore.clip_model import CLIP_MEAN, CLIP_STD
from clipscore.data.images import normalize
from clipscore.data.samples import sample_seed

NORMALIZE = transforms.Compose([transforms.ToTensor(), transforms.Normalize(CLIP_MEAN, CLIP_STD)])


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


def picture(width: int = 90, height: int = 60) -> Image.Image:
    """Smooth, so that every crop of it is different and no operation is invisible."""
    noise = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def pixels(views: torch.Tensor) -> torch.Tensor:
    """Back from CLIP's normalisation to 0..255."""
    mean, std = torch.tensor(CLIP_MEAN).view(3, 1, 1), torch.tensor(CLIP_STD).view(3, 1, 1)
    return (views * std + mean) * 255


@pytest.mark.parametrize(("width", "height"), [(90, 60), (33, 47), (500, 375), (24, 24), (1, 1)])
@pytest.mark.parametrize("size", [24, 32, 224])
def test_centre_view_is_clips_preprocessing(width, height, size):
    image = picture(width, height)
    bicubic = transforms.InterpolationMode.BICUBIC
    reference = transforms.Compose([transforms.Resize(size, bicubic), transforms.CenterCrop(size), NORMALIZE])
    views = make_views(image, 1, size, seed=0)
    assert views.shape == (1, 3, size, size)
    assert torch.equal(views[0], reference(image))


def test_random_views_are_torchvisions_crops_and_flips_of_the_original():
    image = picture()
    reference = transforms.Compose([transforms.RandomResizedCrop(32), transforms.RandomHorizontalFlip(), NORMALIZE])
    torch.manual_seed(11)
    expected = torch.stack([reference(image) for _ in range(7)])
    views = make_views(image, 8, 32, seed=11)
    assert torch.equal(views[1:], expected)
    assert len({view.numpy().tobytes() for view in views}) == 8


@pytest.mark.parametrize("recipe", ["crop", "augmix", "byol"])
@pytest.mark.parametrize("backend", ["pil", "tensor"])
def test_readers_send_bytes_which_are_normalised_to_the_same_numbers(recipe, backend):
    drawn = draw_views(picture(), 4, 24, 5, recipe, backend=backend)
    assert drawn.dtype == (torch.float32 if recipe == "augmix" else torch.uint8)
    views = Sample("a", drawn).on(torch.device("cpu"))
    assert torch.equal(views, make_views(picture(), 4, 24, 5, recipe, backend=backend)) and views.is_contiguous()
    every = torch.arange(256, dtype=torch.uint8).view(16, 16, 1).expand(-1, -1, 3)
    assert torch.equal(normalize(every), NORMALIZE(every.numpy()))
    assert torch.equal(normalize(torch.stack([every, every]))[1], normalize(every))


@pytest.mark.parametrize("recipe", ["crop", "augmix", "byol"])
def test_views_depend_on_the_seed_alone(recipe):
    image = picture()
    before = image.tobytes()
    reference = make_views(image, 6, 24, seed=5, recipe=recipe)
    torch.manual_seed(1)
    make_views(picture(40, 40), 3, 24, seed=6, recipe=recipe)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    again = make_views(image, 6, 24, seed=5, recipe=recipe)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == states
    assert torch.equal(again, reference)
    assert torch.equal(make_views(image, 3, 24, seed=5, recipe=recipe), reference[:3])
    assert not torch.equal(make_views(image, 6, 24, seed=6, recipe=recipe)[1:], reference[1:])
    assert torch.equal(make_views(image, 6, 24, seed=6, recipe=recipe)[0], reference[0])
    assert image.tobytes() == before


def test_seeding_leaves_accelerators_alone(monkeypatch):
    for module, name in ((torch.cuda, "manual_seed_all"), (torch.mps, "manual_seed"), (torch, "manual_seed")):
        monkeypatch.setattr(module, name, None)
    make_views(picture(), 3, 24, seed=5, recipe="augmix")


def test_random_state_returns_after_an_error(monkeypatch):
    monkeypatch.setattr("classification.views.augmix", lambda image: 1 / 0)
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError):
        make_views(picture(), 2, 24, seed=5, recipe="augmix")
    assert torch.equal(torch.get_rng_state(), before)


def test_crop_scale_bounds_the_area():
    position = np.zeros((100, 100, 3), dtype=np.uint8)  # red tells the column, green the row
    position[..., 0], position[..., 1] = np.arange(100)[None, :] * 2, np.arange(100)[:, None] * 2
    image = Image.fromarray(position)

    def areas(**options) -> torch.Tensor:
        crops = pixels(make_views(image, 40, 100, seed=3, **options))[1:, :2].flatten(2)  # [N, 2, H * W]
        return ((crops.amax(2) - crops.amin(2)) / 2 + 1).prod(1) / 100**2

    assert areas().min() < 0.2 < 0.9 < areas().max()
    assert areas(crop_scale=(0.5, 0.6)).min() > 0.47 and areas(crop_scale=(0.5, 0.6)).max() < 0.63
    torch.testing.assert_close(areas(crop_scale=(1.0, 1.0)).max(), torch.tensor(1.0))
    byol = make_views(image, 9, 24, 3, "byol")
    assert torch.equal(byol, make_views(image, 9, 24, 3, "byol", (0.2, 1.0)))
    assert not torch.equal(byol, make_views(image, 9, 24, 3, "byol", (0.08, 1.0)))


def test_byol_changes_colour_at_the_published_rates_and_strengths(monkeypatch):
    views = pixels(make_views(Image.new("RGB", (32, 32), (200, 120, 40)), 1000, 8, seed=0, recipe="byol"))[1:]
    colours = views.mean((2, 3))  # [N, 3]
    assert 0.15 < ((colours.amax(1) - colours.amin(1)) < 1.5).float().mean() < 0.25  # gray with p = 0.2

    def calls_of(operation: type) -> list:
        calls: list = []
        monkeypatch.setattr(operation, "forward", lambda self, image: (calls.append(self), image)[1])
        return calls

    jitters, blurs = calls_of(v2.ColorJitter), calls_of(v2.GaussianBlur)
    make_views(picture(), 501, 8, seed=0, recipe="byol")
    assert 210 < len(jitters) < 290 and 30 < len(blurs) < 75  # p = 0.5 and 0.1
    assert (tuple(blurs[0].kernel_size), tuple(blurs[0].sigma)) == ((3, 3), (0.1, 2.0))
    ranges = [jitters[0].brightness, jitters[0].contrast, jitters[0].saturation, jitters[0].hue]
    np.testing.assert_allclose(ranges, [(0.6, 1.4), (0.6, 1.4), (0.8, 1.2), (-0.1, 0.1)])


def test_augmix_is_the_convex_mixture_of_normalised_chains(monkeypatch):
    """m * x + (1 - m) * sum w_i * chain_i on normalised tensors: m uniform, and w exponential draws over their sum."""
    shades = iter([10, 90, 250])
    monkeypatch.setattr(augmix_module, "_chain", lambda image: Image.new("RGB", image.size, (next(shades), 0, 0)))
    monkeypatch.setattr(augmix_module, "_uniform", lambda low, high: {(0.0, 1.0): 0.25}[low, high])
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda self: self.copy_(torch.tensor([1.0, 2.0, 5.0])))
    mixed = augmix(Image.new("RGB", (4, 4), (80, 40, 20)))
    mean, std = torch.tensor(CLIP_MEAN), torch.tensor(CLIP_STD)
    normalised = 0.25 * (torch.tensor([80.0, 40, 20]) / 255 - mean) / std
    for weight, shade in zip([0.125, 0.25, 0.625], (10.0, 90.0, 250.0), strict=True):
        normalised += 0.75 * weight * (torch.tensor([shade, 0, 0]) / 255 - mean) / std
    torch.testing.assert_close((mixed[0, 0] / 255 - mean) / std, normalised)


def test_chains_apply_one_to_three_operations_all_nine(monkeypatch):
    applied: list[int] = []

    def spy(index: int) -> Callable[[Image.Image], Image.Image]:
        return lambda image: (applied.append(index), image)[1]

    monkeypatch.setattr(augmix_module, "OPERATIONS", tuple(map(spy, range(len(OPERATIONS)))))
    depths = []
    for _ in range(600):
        applied_before = len(applied)
        augmix_module._chain(picture())
        depths.append(len(applied) - applied_before)
    for drawn, values in ((depths, {1, 2, 3}), (applied, set(range(9)))):
        assert set(drawn) == values and max(map(drawn.count, values)) < 1.5 * min(map(drawn.count, values))
    assert {augmix_module._signed(2) for _ in range(50)} == {-2, 2}


def affine(*matrix: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.transform(image.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BILINEAR)


@pytest.mark.parametrize(("name", "level", "expected"), [
    ("translate_x", 1.0, affine(1, 0, -7, 0, 1, 0)),  # int(224 / 3 / 10) = 7
    ("translate_y", 0.5, affine(1, 0, 0, 0, 1, -3)),  # int(0.5 * 7.47) = 3
    ("shear_x", 1.0, affine(1, -0.03, 0, 0, 1, 0)),
    ("shear_y", 0.5, affine(1, 0, 0, -0.015, 1, 0)),
    ("posterize", 0.999, lambda image: image.point(lambda value: value & 0b11110000)),  # 4 bits at every level
    ("solarize", 1.0, lambda image: image.point(lambda value: value if value < 231 else 255 - value)),  # 256 - 25
    ("rotate", 0.999, lambda image: image.rotate(-2, Image.Resampling.BILINEAR)),
])  # fmt: skip
def test_operations_are_augmixs(monkeypatch, name, level, expected):
    monkeypatch.setattr(augmix_module, "_uniform", lambda low, high: {(0.1, 1.0): level}[low, high])
    monkeypatch.setattr(augmix_module, "_signed", lambda value: -value)
    operation = next(op for op in OPERATIONS if op.__name__.strip("_") == name)
    image = picture(224, 224)
    assert operation(image).tobytes() == expected(image).tobytes()


def test_view_seed_is_pinned_and_tells_samples_apart():
    assert sample_seed(0, "imagenet_a", "n01498041/a.jpg") == 8_181_229_579_148_164_068
    keys = [(0, "a", "b"), (1, "a", "b"), (0, "ab", ""), (0, "", "ab"), (0, "a", "c"), (10, "a", "b"), (1, "0a", "b")]
    assert len({sample_seed(*key) for key in keys}) == len(keys)
    assert all(0 <= sample_seed(seed, "a", "ü") < 2**63 for seed in range(200))


@pytest.mark.parametrize(("options", "message"), [
    ({"num_views": 0}, "num_views must be at least 1 .*got 0"),
    ({"size": 0}, "size must be at least 1 pixel, got 0"),
    ({"recipe": "mixup"}, "unknown recipe 'mixup'; valid: crop, augmix, byol"),
    ({"crop_scale": (0.0, 1.0)}, "0 < low <= high <= 1, got .0.0, 1.0"),
    ({"crop_scale": (0.5, 0.4)}, "got .0.5, 0.4"),
    ({"image": Image.new("L", (4, 4))}, "image must be RGB, got mode L; open it with"),
])  # fmt: skip
def test_faulty_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        make_views(**({"image": picture(), "num_views": 2, "size": 8, "seed": 0} | options))


def test_a_very_long_strip_costs_no_memory():
    strip = Image.new("RGB", (40_000, 1), "red")  # resized to 224 x 8,960,000 it would need 6 GB
    views = pixels(make_views(strip, 2, 224, seed=0))
    assert (views - torch.tensor([255.0, 0, 0]).view(3, 1, 1)).abs().max() < 0.01


@pytest.mark.parametrize("recipe", ["crop", "augmix", "byol"])
def test_the_tensor_backend_draws_the_same_views_up_to_rounding(recipe):
    image = picture(120, 80)
    pil, tensor = (pixels(make_views(image, 24, 32, 5, recipe, backend=backend)) for backend in ("pil", "tensor"))
    assert torch.equal(pil[0], tensor[0])
    apart = (pil - tensor).abs()
    assert 0 < apart.mean() < 1.0  # grey levels of 255; another crop is some 40 away
    assert apart[1:].mean(dim=(1, 2, 3)).quantile(0.8) < 1.0
    with pytest.raises(ValueError, match="unknown backend 'gpu'; valid: pil, tensor"):
        make_views(image, 2, 32, 5, recipe, backend="gpu")
