"""Training of mappers: what is learned from what, taken up after a kill, written down, and refused."""

import pickle
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from captioning import predict
from captioning.build import load_language_model
from captioning.checkpoints import load_lm, load_mapper, read_checkpoint
from captioning.config import TrainConfig
from captioning.features import extract
from captioning.features import main as extract_command
from captioning.training import train
from captioning.training.feature_files import CaptionFeatures, load_features
from captioning.training.train import TrainingSet, fresh_captioner, longest_caption
from clipscore.config.load import REPOSITORY
from clipscore.data.caption_sets import find_captions
from clipscore.models.load import load_clip
from scripts import train_mapper
from scripts.demo.training.train_captioner import DATASET, write_training_scenes
from scripts.train_mapper import epoch_losses
from tests.commands import bash, dry_run, here
from tests.scripts.test_trackers import scalars
from tests.whole_runs import die_at

PRETRAINED = REPOSITORY / "pretrained/demo"
NUM_SCENES = 24
SIZES = ["mapper_layers=1", "prefix_length=4", "epochs=3", "batch=8", "lr=1e-2", "warmup=4", "device=cpu"]


@pytest.fixture(scope="module")
def features(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_training_scenes(root, NUM_SCENES)
    clip = load_clip(str(PRETRAINED / "policy.pt"), ".")
    extract(find_captions(DATASET, root, split="train"), "train", clip, root / "features", num_workers=0)
    return root / "features"


def words(kind: str, features: Path, output: Path, *more: str) -> list[str]:
    places = {"features": features, "output_root": output, "pretrained_root": PRETRAINED, "data_root": output}
    given = [f"{key}={value}" for key, value in places.items()]
    models = [f"dataset={DATASET}", "policy=policy.pt", "llm=opt", "num_threads=1"]
    return ["--config", f"configs/captioning/train_{kind}_coco.yaml", *given, *models, *SIZES, *more]


def run_folder(output: Path, kind: str = "clipcap") -> Path:
    return output / f"train_{kind}_coco__demo_scenes-clean__seed0"


@pytest.mark.parametrize("kind", ["clipcap", "capdec"])
def test_a_training_from_the_yaml_to_the_checkpoint(features, tmp_path, kind, demo_lm):
    given = words(kind, features, tmp_path, "epochs=6", "clip_length=6", f"save_llm={kind == 'clipcap'}")
    assert train_mapper.main(given) == 0
    folder = run_folder(tmp_path, kind)
    losses = epoch_losses(folder)
    assert len(losses) == 6 and losses[-1] < 0.6 * losses[0]
    mapper, lm = read_checkpoint(folder)
    load_mapper("transformer", mapper, 128, 64, prefix_length=4, num_layers=1, clip_length=6)
    assert bool(lm) == (kind == "clipcap")
    load_lm(demo_lm[0], lm)
    assert all(torch.equal(demo_lm[0].state_dict()[key], tensor) for key, tensor in lm.items())
    before = {name: (folder / name).read_bytes() for name in ("losses.jsonl", "resume.pt", "ckpt-latest.pt")}
    assert train_mapper.main(given) == 0
    assert {name: (folder / name).read_bytes() for name in before} == before


@pytest.mark.parametrize("kind", ["clipcap", "capdec"])
def test_a_killed_process_goes_on_and_ends_with_the_same_numbers(features, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(train, "REPORT_STEPS", 2)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    losses = run_folder(killed, kind) / "losses.jsonl"
    die_at(train_mapper.TrainingFolder, "write", 9, lambda: train_mapper.main(words(kind, features, killed)))
    assert torch.load(losses.with_name("resume.pt"), weights_only=True)["epoch"] == 1  # 6 lines are an epoch
    for output in (killed, whole):
        assert train_mapper.main(words(kind, features, output)) == 0
    assert losses.read_bytes() == (run_folder(whole, kind) / "losses.jsonl").read_bytes()
    assert len(losses.read_text().splitlines()) == 18
    one, other = (read_checkpoint(run_folder(output, kind))[0] for output in (killed, whole))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def toy() -> CaptionFeatures:
    images, texts = torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([[2.0, 0.0], [0.0, 5.0], [1.0, 0.0]])
    captions = ["a red one", "a", "a blue two above a red one"]
    return CaptionFeatures(images, texts, captions, torch.tensor([1, 0, 1]), [5, 6], weights=None, digest="")


def config(kind: str = "clipcap", **changes) -> TrainConfig:
    roots = {"data_root": "", "pretrained_root": "", "output_root": ""}
    return TrainConfig(kind=kind, dataset="own", features="", prefix_length=4, mapper_layers=1, **roots, **changes)


@pytest.fixture
def demo_lm():
    return load_language_model("opt", PRETRAINED)


def test_what_is_learned_from_what(demo_lm):
    captioner = fresh_captioner(config(), 2, *demo_lm)
    chosen = torch.tensor([2, 1])
    read, tokens, mask = TrainingSet(config(), toy(), captioner).batch(chosen, pad=1)
    assert torch.allclose(read, torch.tensor([[0.0, 1.0], [0.6, 0.8]]))  # images of captions 2 and 1, unit length
    assert tokens[1, :2].tolist() == captioner.tokenize(["a"])[0][0].tolist() and mask.sum(dim=1).tolist()[1] == 2
    assert tokens[0].tolist() == captioner.tokenize([toy().captions[2]])[0][0].tolist() and mask[0].all()
    read, *_ = TrainingSet(config("capdec"), toy(), captioner).batch(chosen, pad=1)
    assert read.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    raw = TrainingSet(config("capdec", normalize_prefix=False), toy(), captioner).features
    assert torch.equal(raw, toy().texts)
    assert len(TrainingSet(config("capdec", limit=2), toy(), captioner)) == 2


def test_captions_of_unusual_length_are_cut():
    assert longest_caption([5]) == 5 and longest_caption([3, 4, 5]) == 5
    lengths = [10] * 999 + [300]
    numbers = torch.tensor(lengths, dtype=torch.float64)
    assert longest_caption(lengths) == int(numbers.mean() + 10 * numbers.std()) < 300


def test_first_weights_are_the_seeds_and_nothing_global_is_drawn(demo_lm):
    state = torch.get_rng_state()
    one, same = (fresh_captioner(config(), 2, *demo_lm).mapper for _ in range(2))
    other = fresh_captioner(config(seed=1), 2, *demo_lm).mapper
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(one.prefix_const, same.prefix_const) and not torch.equal(one.prefix_const, other.prefix_const)
    with pytest.raises(ValueError, match="prefix_length=63 is too long: the language model has 64 positions"):
        fresh_captioner(config().model_copy(update={"prefix_length": 63}), 2, *demo_lm)


def test_the_noise_is_capdecs_alone_and_the_seeds(features, tmp_path):
    losses = {}
    for name, more in {"a": [], "b": ["seed=1"], "c": ["noise_variance=0.0"]}.items():
        assert train_mapper.main(words("capdec", features, tmp_path / name, "epochs=1", *more)) == 0
        losses[name] = epoch_losses(next((tmp_path / name).glob("train_*")))
    assert len({tuple(values) for values in losses.values()}) == 3


def pickled(path: Path, width: int = 128, with_images: bool = True) -> Path:
    images = F.normalize(torch.randn(2, width, generator=torch.Generator().manual_seed(0)), dim=1)
    content = {"clip_text_embedding": images[[0, 0, 1]], "clip_image_embedding": images if with_images else None}
    content |= {"captions": toy().captions, "image_ids": [5, 6], "text_index": [0, 1, 2], "image_index": [0, 0, 1]}
    path.write_bytes(pickle.dumps(content))
    return path


@pytest.mark.parametrize(("more", "message"), [
    (["features=nowhere"], r"no features at .*nowhere.*extract_coco\.sh"),
    (["policy=reward.pt"], "are of a CLIP with sha256 .* but policy=reward.pt has"),
    (["features={narrow}"], "have width 5, but policy=policy.pt makes width 128"),
    (["features={texts}", "batch=1"], "kind=clipcap needs image features"),
    (["batch=97"], "96 captions are less than one batch of 97"),
    (["noise_variance=0.1"], "noise_variance and uniform_ball need kind=capdec"),
    (["mapper=mlp"], "mapper_layers and clip_length need mapper=transformer"),
    (["epoch=3"], "epoch: unknown key; the nearest valid key is epochs"),
    (["lr=1e9"], "not finite|loss nan"),
])  # fmt: skip
def test_bad_input_is_one_sentence(features, tmp_path, capsys, monkeypatch, more, message):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    narrow, texts = pickled(tmp_path / "narrow.pkl", 5), pickled(tmp_path / "texts.pkl", with_images=False)
    filled = [word.format(narrow=narrow, texts=texts) for word in more]
    assert train_mapper.main(words("clipcap", features, tmp_path, *filled)) == 2
    errors = capsys.readouterr().err
    assert re.search(message, errors) and "Traceback" not in errors, errors


def test_another_training_in_the_folder_is_left_alone(features, tmp_path, caplog):
    shutil.copytree(PRETRAINED / "opt", tmp_path / "opt")
    given = words("clipcap", features, tmp_path, "epochs=1", f"llm={tmp_path}/opt")
    assert train_mapper.main(given) == 0
    before = (run_folder(tmp_path) / "resume.pt").read_bytes()
    assert train_mapper.main([*given, "lr=2e-3", "limit=40"]) == 2
    assert "holds another training" in caplog.text and "lr is 0.01 there and 0.002 here" in caplog.text
    assert "limit is None there and 40 here" in caplog.text
    weights = load_file(tmp_path / "opt/model.safetensors")
    save_file({k: t / 2 for k, t in weights.items()}, tmp_path / "opt/model.safetensors", metadata={"format": "pt"})
    assert train_mapper.main(given) == 2 and "holds another training: language_model is" in caplog.text
    assert (run_folder(tmp_path) / "resume.pt").read_bytes() == before


def test_the_bash_scripts(tmp_path, monkeypatch):
    write_training_scenes(tmp_path, 12)
    monkeypatch.setenv("RLCF_OUTPUT", str(tmp_path))
    options = ["--dataset", DATASET, "--policy", PRETRAINED / "policy.pt", "--data-root", tmp_path]
    [extract_coco] = dry_run("captioning/extract_coco.sh", "cpu", *options)
    assert here(*extract_coco) == 0
    given = words("capdec", Path("features/coco_train_vitb16"), tmp_path, "epochs=1")[2:]
    [train_capdec] = dry_run("captioning/train_capdec_coco.sh", "cpu", *given)
    assert here(*train_capdec) == 0 and (run_folder(tmp_path, "capdec") / "ckpt-latest.pt").is_file()
    assert "noise_variance: float" in bash("captioning/train_capdec_coco.sh", "--help").stdout
    others = {"extract_flickr30k": "--dataset flickr30k --split train", "train_clipcap_coco": "train_clipcap_coco.yaml"}
    for script, said in others.items():
        assert said in " ".join(*dry_run(f"captioning/{script}.sh", "cpu"))
        refused = bash(f"captioning/{script}.sh", "lr=1")
        assert refused.returncode == 2 and "the first argument is the GPU's number" in refused.stderr


@pytest.mark.parametrize(
    ("file", "line"),
    [("all.txt", "{0}"), ("Train_GCC.tsv", "{0}\thttp://a.b/{1}.jpg"), ("cc12m.tsv", "https://a.b/{1}\t{0}")],
)
def test_captions_alone_train_a_capdec(tmp_path, caplog, file, line):
    captions = [f"a {('red', 'blue')[n % 2]} {n // 4}, {('left', 'right')[n // 2 % 2]}" for n in range(24)]
    (tmp_path / file).write_text("\n".join(map(line.format, captions, range(24))) + "\n\n")
    given = ["--dataset=web", f"--captions={tmp_path / file}", f"--policy={PRETRAINED / 'policy.pt'}", "--device=cpu"]
    assert extract_command([*given, f"--out={tmp_path / 'features'}"]) == 0
    assert load_features(tmp_path / "features").captions == captions
    run = words("capdec", tmp_path / "features", tmp_path, "dataset=web", "epochs=6")
    assert train_mapper.main(run) == 0
    losses = epoch_losses(tmp_path / "train_capdec_coco__web__seed0")
    assert losses[-1] < 0.8 * losses[0]
    assert train_mapper.main(words("clipcap", tmp_path / "features", tmp_path, "dataset=web")) == 2
    for content, said in [("\n\n", "the file is empty"), ("a\tb\tc\n", "expected a caption a line, .*got")]:
        (tmp_path / file).write_text(content)
        assert extract_command([*given, f"--out={tmp_path / 'other'}"]) == 2 and re.search(said, caplog.text)


def test_a_mapper_of_patches(features, tmp_path, caplog):
    clip = load_clip(str(PRETRAINED / "policy.pt"), ".")
    data = find_captions(DATASET, features.parent, split="train")
    extract(data, "train", clip, tmp_path / "features", num_workers=0, patches=True)
    found, whole = load_features(tmp_path / "features").images, load_features(features).images
    torch.testing.assert_close(found[:, 0], whole)  # the class token first, then the patches
    given = words("clipcap", tmp_path / "features", tmp_path)
    assert train_mapper.main(given) == 2 and "clip_length=None, but the features are [24, 37, 128]" in caplog.text
    assert train_mapper.main([*given, "clip_length=patches"]) == 0
    line = ["--image", str(data.images[0].path), f"checkpoint={run_folder(tmp_path)}", f"pretrained_root={PRETRAINED}"]
    line += [*SIZES[:2], "policy=policy.pt", "llm=opt", "reward.models=reward.pt", "num_candidates=2", "steps=1"]
    line += ["decoding.max_new_tokens=4"]
    assert predict.main(line) == 2 and "set them so" in caplog.text
    assert predict.main([*line, "clip_length=patches"]) == 0


def test_going_on_from_an_official_checkpoint(features, tmp_path, monkeypatch):
    finish = train_mapper.TrainingFolder.finish_epoch

    def keep(self, epoch, training):
        finish(self, epoch, training)
        if epoch == 1:
            official = {"mapper": "state_dict", "schedule": "scheduler"}
            state = {official.get(name, name): part for name, part in training.state_dict().items()}
            state["state_dict"] = {f"clip_project.{key}": tensor for key, tensor in state["state_dict"].items()}
            torch.save({"epoch": epoch, **state}, tmp_path / "ckpt-000.pt")

    monkeypatch.setattr(train_mapper.TrainingFolder, "finish_epoch", keep)
    assert train_mapper.main(words("clipcap", features, tmp_path)) == 0
    monkeypatch.undo()
    assert train_mapper.main(words("clipcap", features, tmp_path / "on", f"start={tmp_path / 'ckpt-000.pt'}")) == 0
    whole, on = epoch_losses(run_folder(tmp_path)), epoch_losses(run_folder(tmp_path / "on"))
    assert on == whole[1:]
    mapper, again = (read_checkpoint(run_folder(root))[0] for root in (tmp_path, tmp_path / "on"))
    assert all(torch.equal(mapper[key], again[key]) for key in mapper)
    done = ["epochs=1", f"start={tmp_path / 'ckpt-000.pt'}"]
    assert train_mapper.main(words("clipcap", features, tmp_path / "done", *done)) == 2


def test_the_loss_in_tensorboard(features, tmp_path):
    pytest.importorskip("tensorboard", reason="pip install tensorboard: log_to is not tested")
    assert train_mapper.main(words("capdec", features, tmp_path, "log_to=tensorboard", "epochs=2")) == 0
    folder = run_folder(tmp_path, "capdec")
    assert scalars(folder)["loss"] == [(12 * n, pytest.approx(x)) for n, x in enumerate(epoch_losses(folder), start=1)]
