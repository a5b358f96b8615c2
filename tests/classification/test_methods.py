"""Methods without a recorded trace, worked out by hand; those with one are in `tests.parity_peers`."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from classification.method import Context
from classification.policy import FixedPolicy, PrototypePolicy
from classification.seen import Views
from clipscore.config.methods import find_method
from tests.classification.test_adapt import config
from tests.parity_peers import GivenReward

CLIP = SimpleNamespace(logit_scale=torch.tensor(100.0, dtype=torch.float64), cast_frozen=lambda: None)


def tensor(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def build(name, policy, texts, fraction=1.0, num_views=2, **changes):
    options = config(method=name, views={"num_views": num_views, "select_fraction": fraction}, **changes)
    return find_method("classification", name)(
        Context(options, [str(n) for n in range(len(texts))], policy, GivenReward([CLIP], [1.0]), [texts])
    )


def see(method, shown, features):
    views = Views(shown, method.context.policy, method.context.reward, method.context.reward_class_features)
    views.features = features
    return views


def test_best_of_k_by_hand():
    texts = tensor([0.6, 0.8], [0.8, 0.6], [1, 0], [0, 1])
    method = build("best_of_k", FixedPolicy(CLIP, torch.zeros(4, 2)), texts, num_candidates=1, steps=0, lr=0.0)
    views = see(method, tensor([1, 0], [0, 1]), None)
    views.logits = tensor([0.5, 0.25, 0.15, 0.1], [0.2, 0.6, 0.1, 0.1]).log()
    answer = method.answer(views)  # first choices are 0 and 1, with mean rewards 2.5 * (0.6 + 0.8) / 2 and the same
    assert answer.logits.tolist() == pytest.approx([175, 175, 173.125, 173.1], abs=1e-6)
    assert answer.logits.argsort(descending=True).tolist() == [1, 0, 2, 3]  # 1 is likelier
    assert [values[0].tolist() for values in answer.extra.values()] == [[[0, 1]], [pytest.approx([1.75, 1.75])]]


@pytest.mark.parametrize(("shown", "votes"), [([2, 2, 2], [0, 0, 2]), ([0, 2, 1], [0, 2, 1])])
def test_the_reward_votes_by_hand(shown, votes):
    features = F.normalize(tensor([0.6, 0.61, 0.5], [1, 0, 0], [0.1, 1, 0]), dim=1)
    eye = torch.eye(3, dtype=torch.float64)
    changes = {"num_views": 3, "fraction": 0.7, "vote_temperature": 1e-6, "steps": 0, "lr": 0.0}
    method = build("zero_reward", FixedPolicy(CLIP, eye), eye, **changes)
    views = see(method, eye[shown], features)
    assert views.confident(0.7).tolist() == [1, 2]
    assert method.count(views).votes.tolist() == votes  # of a tie between 1 and 2 view 0 decides, with one vote more
    shares = method.answer(views).logits.softmax(0)
    torch.testing.assert_close(shares, tensor(votes)[0] / sum(votes))


@pytest.mark.parametrize("name", ["tda", "boost_adapter"])
def test_an_image_that_is_not_finite_does_not_enter_the_caches(name):
    eye = torch.eye(2, dtype=torch.float64)
    method = build(name, FixedPolicy(CLIP, eye), eye, steps=0, lr=0.0, reward=None)
    method.answer(see(method, eye, eye))
    before = [tensor.clone() for tensor in method.positive.tensors]
    with pytest.raises(FloatingPointError, match="not finite: the entropy of an image is nan"):
        method.answer(see(method, eye, eye * torch.nan))
    assert all(map(torch.equal, before, method.positive.tensors))


def test_prototypes_are_those_of_a_plain_loop():
    generator = torch.Generator().manual_seed(0)
    z, w, u, v = (
        F.normalize(torch.randn(n, 8, generator=generator, dtype=torch.float64), dim=1) for n in (10, 6, 10, 6)
    )
    settings = {"steps": 3, "lr": 5e-3, "weight_decay": 5e-4, "eps": 1e-8}
    method = build("rlcf", PrototypePolicy(CLIP, w), v, 0.4, 10, tune="prototypes", num_candidates=3, **settings)
    found = method.answer(see(method, u, z))
    p = (100 * z @ w.T).softmax(1)
    selected = (-(p * p.log()).sum(1)).argsort()[:4]
    s, m1, m2 = (torch.zeros_like(w) for _ in range(3))
    for t in (1, 2, 3):
        s.requires_grad_()
        log_p = (100 * z[selected] @ F.normalize(w + s, dim=1).T).log_softmax(1)
        loss = 0
        for row, view in enumerate(selected):
            candidates = log_p[row].topk(3).indices
            rewards = (2.5 * u[view] @ v[candidates].T).clamp(min=0)
            loss = loss - ((rewards - rewards.mean()) * log_p[row, candidates]).sum() / 12
        (gradient,) = torch.autograd.grad(loss, s)
        m1, m2 = 0.9 * m1 + 0.1 * gradient, 0.999 * m2 + 0.001 * gradient**2
        change = m1 / (1 - 0.9**t) / ((m2 / (1 - 0.999**t)).sqrt() + 1e-8)
        s = s.detach() * (1 - 5e-3 * 5e-4) - 5e-3 * change
        assert found.steps[t - 1].loss.item() == pytest.approx(loss.item(), abs=1e-12)
    after = 100 * z[0] @ F.normalize(w + s, dim=1).T
    torch.testing.assert_close(found.logits, after, atol=1e-10, rtol=0)
    assert (after - found.before).abs().max() > 0.1
