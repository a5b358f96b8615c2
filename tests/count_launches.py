"""How many kernels one sample launches and how often the host waits, at the paper's depths, on the pretended device.

    python -m tests.count_launches [prompt200 prompt1000 encoder image_to_text text_to_image captioning ...]

A launch is an operation on device tensors that is neither a view nor an allocation; attention counts as one forwards
and one backwards (flash kernels), a `_foreach` or fused operation as one. The depth is that of ViT-B/16 with a ViT-L/14
reward and OPT-125m (width 64: the count does not depend on it); one image at a time (x8: eight at once), no graphs,
fp16 autocast; 3 steps and 64 views for classification, 8 steps, a gallery of 5,000 for retrieval, 4 steps, 10 captions,
12 tokens.
"""

import argparse
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import open_clip
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch.nn import functional as F
from transformers import OPTConfig, OPTForCausalLM

import captioning.build
import captioning.task
import classification.build
import classification.task
import classification.together
import retrieval.build
import retrieval.task
from captioning.captioner import Captioner
from captioning.config import CaptioningConfig
from captioning.mapper import build_mapper
from classification.config import ClassificationConfig
from clipscore.clip_model import ClipModel
from clipscore.data.caption_sets import CaptionedImage
from clipscore.data.samples import Sample
from clipscore.metrics.stage_times import StageTimes
from clipscore.models.group import Models
from clipscore.task import Task
from retrieval.config import RetrievalConfig
from scripts.bench.captioning import NumberTokenizer
from tests.pretend_cuda import pretend_cuda

CUDA = torch.device("cuda")
COMMON = {"dataset": "x", "data_root": "", "pretrained_root": "", "output_root": "", "num_workers": 0,
          "method": "rlcf", "reward": {"models": ["r"]}}  # fmt: skip


def clip(layers_image: int) -> ClipModel:
    """A narrow CLIP with so many layers, and 12 for text, on the device, fp16 autocast, frozen."""
    torch.manual_seed(0)
    image = CLIPVisionCfg(layers=layers_image, width=64, head_width=64, patch_size=16, image_size=32)
    text = CLIPTextCfg(context_length=77, vocab_size=49408, width=64, heads=1, layers=12)
    model = ClipModel(CLIP(64, image, text, quick_gelu=True), "narrow", "random", open_clip.tokenize, torch.float16)
    return model.to("cuda").eval().requires_grad_(False)


def reward(images: bool = True) -> ClipModel:
    """The reward model as a run has it."""
    model = clip(24)
    model.cast_frozen(images)
    return model


def task(kind: type[Task], config: Any, **parts: Any) -> Any:
    """A task of these parts, without files."""
    made: Any = kind.__new__(kind)
    made.__dict__.update(parts, config=config, device=CUDA, times=StageTimes(CUDA), adapts=True, sequential=False)
    made.models = parts.get("models", SimpleNamespace(scale_loss=True, rewards=[]))
    return made


def count_classification(tune: str, num_classes: int, at_once: int = 1) -> Callable[[], object]:
    names = ["very " * (number % 8) + f"small thing {number}" for number in range(num_classes)]  # of many lengths
    lr = 7e-3 if tune == "prompt" else 1e-5
    config = ClassificationConfig.of(
        {**COMMON, "tune": tune, "steps": 3, "lr": lr, "num_candidates": 3, "prompt": "a photo of a",
         "dataset_files": {"images": "x"}}
    )  # fmt: skip
    models = Models(clip(12), [reward()], [], CUDA, torch.float16)
    method = classification.build.build_method(config, models, names)
    made = task(classification.task.ClassificationTask, config, method=method, bank=None)
    if at_once > 1:
        made.at_once, made.together = at_once, classification.together.Together(method, at_once)
    made._watch()
    samples = [classification.task.Sample(str(i), torch.randn(64, 3, 32, 32), None, 3) for i in range(at_once)]

    def adapt() -> None:
        done = made.adapt_together(samples) if at_once > 1 else {}
        for sample in samples:
            _ = done.get(sample.id) or made.adapt(sample)

    made._group = {}
    return adapt


def count_retrieval(direction: str) -> Callable[[], object]:
    config = RetrievalConfig.of(
        {**COMMON, "direction": direction, "steps": 8, "lr": 1e-6, "dataset_files": {"annotations": ""}}
    )
    model, by_image = clip(12), direction == "image_to_text"
    galleries = [F.normalize(torch.randn(5000, 64), dim=1).to("cuda") for _ in range(2)]
    both = Models(model, [reward().cpu()], [], CUDA, torch.float16)
    method = retrieval.build.build_method(config, both, galleries)
    made = task(
        retrieval.task.RetrievalTask, config, method=method, by_image=by_image, positives=[[3]], _numbers={"a": 0},
        models=both, galleries=galleries, queries=[gallery[:1] for gallery in galleries],
        pairs=SimpleNamespace(texts=["x"]),
    )  # fmt: skip
    made.watch()
    ids = open_clip.tokenize(["a man riding a wave on top of a surfboard in water"])[0]
    return lambda: made.adapt(Sample("a", torch.randn(3, 32, 32) if by_image else ids))


def count_captioning() -> Callable[[], object]:
    torch.manual_seed(0)
    sizes = {"ffn_dim": 256, "num_hidden_layers": 12, "num_attention_heads": 1}
    opt = OPTForCausalLM(OPTConfig(hidden_size=64, word_embed_proj_dim=64, **sizes))
    captioner = Captioner(opt, NumberTokenizer(), build_mapper("transformer", 64, 64, 40, 8), torch.float16).to("cuda")
    captioner.cast_frozen()
    policy = clip(12)
    policy.cast_frozen()
    config = CaptioningConfig.of(
        {**COMMON, "checkpoint": "", "steps": 4, "lr": 2e-6, "num_candidates": 10, "metrics": ["bleu"],
         "dataset_files": {"annotations": ""}, "decoding": {"max_new_tokens": 12}}
    )  # fmt: skip
    made = task(
        captioning.task.CaptioningTask, config, clip=policy, captioner=captioner, data=SimpleNamespace(name="x"),
        method=captioning.build.build_method(
            config, captioner, [reward(images=not config.FP32_REWARD_IMAGES)], scale_loss=True
        ),
        _images={"a": CaptionedImage("a", None, ("x",), "a")},
    )  # fmt: skip
    return lambda: made.adapt(Sample("a", torch.randn(3, 32, 32)))


CASES: dict[str, Callable[[], Callable[[], object]]] = {
    "prompt200": lambda: count_classification("prompt", 200),
    "prompt1000": lambda: count_classification("prompt", 1000),
    "prompt200x8": lambda: count_classification("prompt", 200, 8),
    "prompt1000x8": lambda: count_classification("prompt", 1000, 8),
    "encoder": lambda: count_classification("encoder", 100),
    "encoderx8": lambda: count_classification("encoder", 100, 8),
    "image_to_text": lambda: count_retrieval("image_to_text"),
    "text_to_image": lambda: count_retrieval("text_to_image"),
    "captioning": count_captioning,
}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="*", choices=[*CASES, []])
    torch.set_num_threads(1)
    for case in parser.parse_args().case or CASES:
        with pretend_cuda() as device:
            adapt = CASES[case]()
            adapt()  # what is made once
            operations, num_waits = device.launches, len(device.waits)
            adapt()
            launches, waits = device.launches - operations, device.waits[num_waits:]
        print(f"{case}: {sum(launches.values())} launches, {len(waits)} waits")
        print("    most:", ", ".join(f"{name} {n}" for name, n in launches.most_common(12)))
        places = Counter(f"{wait.operation} {wait.where}" for wait in waits)
        print("    waits:", "; ".join(f"{n} x {place}" for place, n in places.most_common(8)), flush=True)


if __name__ == "__main__":
    main()
