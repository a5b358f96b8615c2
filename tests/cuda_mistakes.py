"""Seeds mistakes that only a CUDA device would show, and says which tests on the pretended device notice them.

    python -m tests.cuda_mistakes [part of a description ...]

Each is a change of the text of one file, in a copy of the repository, where the tests named beside it are run. The exit
code is 0 when at most one is not noticed. About 20 minutes.
"""

import contextlib
import importlib
import io
import os
import re
import shutil
import sys
import tempfile
from multiprocessing import get_context
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("clipscore", "classification", "retrieval", "captioning", "scripts", "configs", "tests")

SEEN, UPDATES, GENERATE = "classification/seen.py", "clipscore/updates.py", "captioning/generate.py"
TEXT, CLIP, OBJECTIVES = "clipscore/text_encoder.py", "clipscore/clip_model.py", "clipscore/objectives.py"
POLICY, TASK, GROUP = "classification/policy.py", "clipscore/task.py", "clipscore/models/group.py"
ENTROPY, VIEWS = "return -(log_p.exp() * log_p).sum(dim=-1)", "return entropies(logits).argsort()[..., :num_selected]"
LOSS = "loss = candidate_loss(logits, candidates, advantages, self.zero_sum)"
IMAGES, LOOK = "return tower(images).to(self.dtype)", "return scale != INIT_LOSS_SCALE / 2**self.num_repeated"
SCALER_STEP = "self.scaler.step(self.optimizer)"
PROMPT, ENCODER, BEAMS = "wasted and prompt", "wasted and encoder", "wasted and beams"

# What is wrong; where; the text before and after; the tests that could see it, as for pytest -k.
MISTAKES = [
    ("an index of the CPU is added to logits", SEEN, ENTROPY, f"{ENTROPY} + 0 * torch.arange(len(logits))", PROMPT),
    ("numpy reads a tensor of the device", SEEN, VIEWS, VIEWS.replace("entropies(logits)", "torch.from_numpy("
     "entropies(logits).numpy())"), PROMPT),
    ("a copy to the host is read before it arrives", SEEN, VIEWS, VIEWS.replace(".argsort", ".to('cpu', "
     "non_blocking=True).argsort"), PROMPT),
    ("the loss is looked at in each step", OBJECTIVES, LOSS, f"{LOSS}; float(loss)", PROMPT),
    ("a number is copied to the device in each step", OBJECTIVES, LOSS,
     f"{LOSS} + 0 * torch.tensor([1.0], device=logits.device).sum()", PROMPT),
    ("a mask is an index in each step", OBJECTIVES, LOSS, f"{LOSS} + 0 * logits[logits > 0].sum()", PROMPT),
    ("max_used is ignored", TEXT, "if max_used is None and used.ndim == 1:", "if used.ndim == 1:", PROMPT),
    ("the attention mask has another type", "clipscore/lean_blocks.py", "mask.to(q.dtype)", "mask.double()", PROMPT),
    ("features stay in half precision", CLIP, IMAGES, "return tower(images)", ENCODER),
    ("one autocast around the whole episode", TASK, "row = self._episode(sample)",
     "row = torch.autocast('cuda', torch.float16, self.models.scale_loss)(self._episode)(sample)", ENCODER),
    ("the update goes around the GradScaler", UPDATES, SCALER_STEP, "self.optimizer.step()", "overflows"),
    ("gradients are not unscaled, overflow included", UPDATES, f"{SCALER_STEP}  # does nothing where a gradient is "
     "not finite ...\n            self.scaler.update()", "self.optimizer.step()", "overflows"),
    ("an overflow is ignored", UPDATES, LOOK, "return False", "overflows"),
    ("the loss scale is not restarted", UPDATES, "self.scaler.load_state_dict(self._scaler_start)", "pass",
     "overflows"),
    ("the loss is not scaled", GROUP, "return self.precision is torch.float16", "return False",
     ENCODER),
    ("the reward's frozen weights are cast at each use", GROUP,
     "model.cast_frozen(images=not config.FP32_REWARD_IMAGES)", "pass", PROMPT),
    ("the policy's frozen weights are cast at each use", POLICY, "clip, learner, learner.context\n        "
     "clip.cast_frozen()", "clip, learner, learner.context", PROMPT),
    ("several images are waited for at each step", "classification/together.py", "self.state.updates.looks = False",
     "pass", "several"),
    ("what several images found is read one by one", "classification/together.py",
     "episodes, distances = state.read((episodes, list(moved)))", "distances = [state.read(m.cpu()) for m in moved]",
     "several"),
    ("the language model's weights are cast at each use", "captioning/task.py", "self.captioner.cast_frozen()",
     "pass", BEAMS),
    ("the tuned tower is cast too", "clipscore/lean_blocks.py", "if not weight.requires_grad and weight.dtype == "
     "torch.float32:\n            owner", "if weight.dtype == torch.float32:\n            owner", ENCODER),
    ("all weights are in half precision", "clipscore/models/load.py", "ClipModel(backend.float(), ",
     "ClipModel(backend.half() if autocast_dtype else backend.float(), ", ENCODER),
    ("AdamW is not fused", TASK, "fused=True", "foreach=True", ENCODER),
    ("stage times wait at each mark", "clipscore/metrics/stage_times.py", "event = torch",
     "torch.cuda.synchronize(); event = torch", ENCODER),
    ("a record is copied tensor by tensor", "clipscore/models/devices.py", "copies = torch.cat(parts).cpu().split("
     "[len(part) for part in parts])", "copies = [part.cpu() for part in parts]", PROMPT),
    ("the views are copied with a wait", "clipscore/data/samples.py", "device, non_blocking=True", "device", PROMPT),
    ("places of end tokens stay on the CPU", CLIP, "eot = eot.to(embeddings.device, non_blocking=True)", "pass",
     PROMPT),
    ("float64 becomes float32 on the device", CLIP, "return x.to(self.dtype)", "return x.float() if x.is_cuda else x",
     "A_prompt_onestep"),
    ("class features are made again for each image", POLICY, "if self._start_context is None or not ",
     "if self._start_context is None or True or not ", PROMPT),
    ("attention is nn.MultiheadAttention's", CLIP, "if lean:", "if not lean:", ENCODER),
    ("the host looks at each token of a beam search", GENERATE, "(looks.get(prefix.device.type, 1) for looks in "
     "(LOOK_INTERVAL, FIRST_LOOK))", "(1, 1)", BEAMS),
    ("the language model looks at a mask", "captioning/captioner.py", "if mask is None and self._takes_positions:",
     "if False:", BEAMS),
    ("what a CPU generator drew stays on the CPU", GENERATE, "place.to(logits.device)", "place", "drawn"),
    ("shares are summed up on the device", GENERATE, "p = best.values.cpu()", "p = best.values", "drawn"),
    ("a graph is captured for other views", "classification/build.py", "graph_visual(config.views.num_selected)",
     "graph_visual(config.views.num_views)", "graphs and encoder"),
    ("an image that was broken off leaves gradients", UPDATES, "in self.copies:  # they", "in []:  # they", "memory"),
    ("a momentum buffer is read back to the CPU", "clipscore/episodic.py", ".to(tensor.device, copy=True)", ".clone()",
     "momentum"),
    ("statistics of the prior in half precision", POLICY, "x.detach().to(self.running_mean.dtype)",
     "x.detach()", "prior"),
]  # fmt: skip


def gone() -> list[str]:
    """Mistakes whose text is no longer in its file, or not only once."""
    return [name for name, file, before, *_ in MISTAKES if (ROOT / file).read_text().count(before) != 1]


def tests_that_notice(file: str, before: str, after: str, tests: str) -> list[str]:
    """The tests that fail with this change."""
    with tempfile.TemporaryDirectory() as folder, get_context("fork").Pool(1) as pool:  # what is imported stays so
        tree = Path(folder) / "tree"
        for name in PARTS:
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "golden"))
        for name in ("pretrained", "tests/golden", "pyproject.toml"):
            (tree / name).symlink_to(ROOT / name)
        (tree / file).write_text((ROOT / file).read_text().replace(before, after))
        return pool.apply(_failed, [tree, tests])


def _failed(tree: Path, tests: str) -> list[str]:
    """Tests of a tree that fail in this process, in which nothing of another tree is left."""
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    for name in [name for name in sys.modules if name.partition(".")[0] in PARTS]:
        del sys.modules[name]
    words = ["-q", "-m", "", "-k", tests, "--tb=no", "-p", "no:cacheprovider", "tests/cuda"]
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        code = pytest.main(words)
    assert code in (0, 1), told.getvalue()
    return re.findall(r"^(?:FAILED|ERROR) \S+::(\S+)", told.getvalue(), re.MULTILINE)


def main() -> int:
    """Command line; the number of mistakes that were not noticed is what counts."""
    chosen = [mistake for mistake in MISTAKES if not sys.argv[1:] or any(part in mistake[0] for part in sys.argv[1:])]
    escaped = 0
    importlib.import_module("tests.cuda.test_device")  # libraries, once for all
    for name, *change in chosen:
        found = tests_that_notice(*change)
        escaped += not found
        print(f"{name}: {', '.join(found) or 'NOT NOTICED'}", flush=True)
    print(f"{len(chosen)} mistakes, {escaped} not noticed")
    return int(escaped > 1)


if __name__ == "__main__":
    sys.exit(main())
