"""What is tuned, what is selected, and that an episode leaves no trace."""

import functools
import weakref

import pytest
import torch

from classification import adapt as adapt_module
from classification.adapt import adapt
from classification.build import build_method, build_policy, check_candidates
from classification.config import ClassificationConfig
from classification.methods.atkd import atkd_loss
from classification.policy import PriorBatchNorm2d
from classification.prompt_learner import class_prompts
from classification.seen import Views
from clipscore.models import group
from clipscore.models.group import Models
from clipscore.task import build_state
from clipscore.text_encoder import encode_prompts, encode_texts

NAMES = ["wok", "great_white_shark", "T-shirt", "fire truck", "Granny_Smith", "sea_urchin"]
VIEWS = torch.randn(2, 16, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def config(**changes):
    values = {"dataset": "x", "dataset_files": {"images": ""}, "method": "rlcf", "steps": 2, "lr": 1e-3}
    values |= dict.fromkeys(("data_root", "pretrained_root", "output_root"), "")
    values |= {"views": {"num_views": 16, "select_fraction": 0.25}, "reward": {"models": [{"name": "R1"}]}}
    return ClassificationConfig.of(values | changes)


def build(tiny_clip, clip="P", **changes):
    options = config(**changes)
    rewards = [tiny_clip(model.name) for model in options.reward.models] if options.reward else []
    return parts_of(options, tiny_clip(clip), rewards)


def parts_of(options, clip, rewards):
    method = build_method(options, Models(clip, rewards, [], clip.device, clip.autocast_dtype), NAMES)
    return options, method.policy, method.state, method.objective


def seen(parts, views):
    return Views(views, parts[1], getattr(parts[3], "reward", None))


def run(parts, views):
    options, policy, state, objective = parts
    return adapt(policy, state, objective, seen(parts, views), options.views.num_selected, options.steps)


def test_class_features_are_kept_as_long_as_the_context_stays(tiny_clip):
    options, policy, state, objective = build(tiny_clip, tune="prompt")
    logits, plain_build, encoded = policy.logits, policy.learner.build, []
    policy.learner.build = lambda context, rows: encoded.append(len(rows)) or plain_build(context, rows)

    def checked(inputs, at_start=False):
        encoded.clear()
        found, num_encoded, learner = logits(inputs, at_start), sum(encoded), policy.learner
        plain = encode_prompts(policy.clip, plain_build, learner.context, learner.eot)
        torch.testing.assert_close(found, policy.clip.logit_scale * inputs @ plain.T, atol=1e-12, rtol=0)
        passes.append(num_encoded)
        return found

    policy.logits, passes = checked, []
    for views in VIEWS:
        run((options, policy, state, objective), views)
    assert passes == [0, 0, 6, 6] * 2  # the views are selected, and the first step taken, with what is known


def test_how_many_classes_a_loss_can_depend_on(tiny_clip, monkeypatch):
    found = []
    monkeypatch.setattr("classification.policy.PromptPolicy.limit_classes", lambda policy, most: found.append(most))
    rewards = {"models": [{"name": "R1"}], "baseline_over": "batch"}
    for changes in [{}, {"entropy_weight": 0.1}, {"num_candidates": 1}, {"reward": rewards}]:
        build(tiny_clip, tune="prompt", **changes)
    build(tiny_clip, tune="prompt", method="tpt", reward=None)
    assert found == [4 * 3, None, None, None, None]


def test_what_is_tuned(tiny_clip):
    def clip(name):
        return tiny_clip(name).half().float()  # frozen image weights are kept in fp16

    prompt, encoder, norm = (build(clip, tune=tune)[1] for tune in ("prompt", "encoder", "norm"))
    assert {name: tuple(t.shape) for name, t in prompt.tuned.items()} == {"context": (4, 64)}
    assert not any(p.requires_grad for p in prompt.clip.parameters())
    assert list(encoder.tuned) == [name for name, _ in encoder.clip.visual.named_parameters()]
    trainable = {name for name, p in encoder.clip.named_parameters() if p.requires_grad}
    assert all(".visual." in name for name in trainable) and len(trainable) == len(encoder.tuned) == 32
    assert len(norm.tuned) == 12 and all("ln" in name for name in norm.tuned) and norm.state.keys() == norm.tuned.keys()
    resnet = build(tiny_clip, "RN", tune="norm")[1]
    assert not any("downsample" in name for name in resnet.tuned) and "bn1.running_mean" in resnet.state


def test_fixed_atkd_is_zero_for_a_teacher_that_differs_in_scale_only():
    student = torch.randn(4, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert atkd_loss(student, 3 * student + 5, fixed=True).abs() < 1e-8
    assert atkd_loss(student, 3 * student + 5) > 1e-3  # as released


def test_prior_leaves_a_resnet_reward_alone(tiny_clip):
    views = torch.nn.functional.interpolate(VIEWS[0], size=(64, 64))
    parts = build(tiny_clip, "RN", tune="encoder", bn_prior=16.0, reward={"models": [{"name": "RN"}]})
    reward = parts[3].reward.models[0]
    before = reward.encode_images(views)
    run(parts, views)
    assert not any(isinstance(m, PriorBatchNorm2d) for m in reward.modules())
    assert torch.equal(reward.encode_images(views), before)


def test_before_is_zero_shot_even_where_tuned_norms_answer_in_train_mode(tiny_clip):
    views = torch.nn.functional.interpolate(VIEWS[0], size=(64, 64))
    before = [run(build(tiny_clip, "RN", tune=tune), views).before for tune in ("encoder", "norm")]
    clip = tiny_clip("RN")
    features = encode_texts(clip, class_prompts("a photo of a", NAMES))
    zero_shot = clip.logit_scale * clip.encode_images(views[:1])[0] @ features.T
    for logits in before:
        torch.testing.assert_close(logits, zero_shot, atol=1e-12, rtol=0)


def build_float(tiny_clip, device, autocast, **changes):
    options = config(**changes)
    clips = [tiny_clip(name).float().to(device) for name in ("P", "R1")]
    for clip in clips:
        clip.autocast_dtype = autocast
    return parts_of(options, clips[0], clips[1:])


def test_class_features_of_fixed_prompts_are_made_outside_of_autocast(tiny_clip):
    plain, half = (tiny_clip("P").float() for _ in range(2))
    half.autocast_dtype = torch.bfloat16
    plain, half = (build_policy(config(tune="encoder"), clip, NAMES) for clip in (plain, half))
    assert torch.equal(plain.class_features(), half.class_features()) and half.clip.autocast_dtype is torch.bfloat16
    views = VIEWS[0].float()
    assert not torch.equal(plain.logits(views), half.logits(views))


def test_a_compiled_tower_goes_backward_again_after_an_overflow(tiny_clip, monkeypatch):
    clip = tiny_clip("P")
    monkeypatch.setattr(clip.visual, "compile", functools.partial(clip.visual.compile, backend="aot_eager"))
    policy = build_policy(config(tune="encoder"), clip.compile_visual(), NAMES)
    state = build_state(config(tune="encoder"), policy, scale_loss=True)
    with state.episode():
        state.step((policy.logits(VIEWS[0]).half() * (65504 / 300)).float().sum())  # infinite at a scale above 300
    assert state.updates.num_repeated == 2


def test_the_first_pass_over_all_views_is_not_kept_for_the_later_steps(tiny_clip, monkeypatch):
    options, policy, _, objective = build(tiny_clip, "RN", tune="encoder")
    state, alive, graphs = build_state(options, policy, scale_loss=True), [], []
    views = torch.randn(16, 3, 64, 64, dtype=torch.float64)

    def first_logits(*arguments, plain=adapt_module.first_logits):
        logits = plain(*arguments)
        graphs.append(weakref.ref(logits))
        return logits

    monkeypatch.setattr(adapt_module, "first_logits", first_logits)
    seen = Views(views, policy, objective.reward)
    adapt(policy, state, objective, seen, 4, 2, on_step=lambda step: alive.append(graphs[0]() is not None))
    assert alive == [True, False]


@pytest.mark.gpu
@pytest.mark.parametrize("tune", ["prompt", "encoder", "norm"])
def test_half_precision_on_cuda_agrees_with_the_cpu(tiny_clip, tune):
    cpu = run(build_float(tiny_clip, "cpu", None, tune=tune), VIEWS[0].float())
    cuda = run(build_float(tiny_clip, "cuda", torch.float16, tune=tune), VIEWS[0].float().cuda())
    assert cuda.after.dtype == torch.float32
    torch.testing.assert_close(cuda.after.cpu(), cpu.after, atol=0.1, rtol=0)


@pytest.mark.gpu
def test_steps_never_wait_for_the_gpu(tiny_clip):
    views = VIEWS[0].float().cuda()
    parts = _, policy, state, objective = build_float(tiny_clip, "cuda", torch.float16, tune="prompt")
    run(parts, views)  # warm up
    with state.episode():
        inputs = policy.prepare(seen(parts, views))[:4]
        observed = objective.observe(objective.reward.encode_images(views[:4]))
        state.updates.looks = False
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(2):
                state.step(objective.step(policy.logits(inputs), observed).loss)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_bad_numbers_are_named(tiny_clip):
    parts = build(tiny_clip, tune="prompt", lr=1e300)
    with pytest.raises(FloatingPointError, match="not finite: losses"):
        run(parts, VIEWS[0])
    with pytest.raises(ValueError, match="bn_prior needs a policy with BatchNorm"):
        build(tiny_clip, tune="encoder", bn_prior=16.0)
    with pytest.raises(ValueError, match="shorten prompt"):
        build(tiny_clip, tune="prompt", prompt="a " * 80)
    with pytest.raises(ValueError, match="num_candidates=9, but x has 6 classes"):
        check_candidates(config(tune="prompt", num_candidates=9), 6)


@pytest.mark.parametrize(("device", "precision", "tune", "warns"), [
    ("cuda", torch.bfloat16, "encoder", True), ("cuda", None, "norm", True), ("cuda", torch.float16, "encoder", False),
    ("cuda", None, "prompt", False), ("cpu", None, "encoder", False),
])  # fmt: skip
def test_another_precision_than_fp16_is_warned_of_where_a_clip_is_tuned(
    device, precision, tune, warns, tiny_clip, monkeypatch, caplog
):
    monkeypatch.setattr(group, "check_models", lambda config: (torch.device(device), precision))
    monkeypatch.setattr(group, "prepare_torch", lambda *settings: None)
    monkeypatch.setattr(group, "load_clip", lambda *settings: tiny_clip("P"))
    group.load_models(config(tune=tune))
    assert ("the published figures are of fp16" in caplog.text) == warns
