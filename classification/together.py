"""Prompt tuning of several images at once: the same episodes, each step of all of them in one pass.

A small step leaves a GPU idle while the host prepares the next, and a CPU between small operations. Each image has a
context of its own; AdamW goes number by number, so the sum of the images' losses moves each as its own loss would.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from classification.adapt import Episode, averaged_entropy
from classification.method import TunedMethod
from classification.policy import PromptPolicy
from classification.seen import Views, confident_views
from clipscore.objectives import Step, check_finite
from clipscore.reward import resize_images
from clipscore.task import build_state


class SeveralPrompts(PromptPolicy):
    """The policy of B images: another one's, with a context for each. [B, n_ctx, W]"""

    def __init__(self, one: PromptPolicy, num_images: int) -> None:
        self.clip, self.learner, self.max_used = one.clip, one.learner, one.max_used
        assert one._start_context is not None and one._start_features is not None
        self.context = nn.Parameter(one._start_context.repeat(num_images, 1, 1))
        self.state = self.tuned = {"context": self.context}
        self._start_features = one._start_features.expand(num_images, -1, -1)


class Together:
    """Episodes of a method of which `batches` holds, for B images that start from one prompt.

    ValueError: the method tunes no prompt, or the prompt depends on the image (CoCoOp).
    """

    def __init__(self, method: TunedMethod, num_images: int) -> None:
        if type(method.policy) is not PromptPolicy:
            raise ValueError("images_at_once needs a tuned prompt that is the same for all images; leave it out")
        self.method, self.config = method, method.context.config
        self.policy = SeveralPrompts(method.policy, num_images)
        self.state = build_state(self.config, self.policy, method.context.scale_loss)
        self.state.updates.looks = False

    def adapt(self, images: Sequence[Views]) -> tuple[list[Episode], list[Tensor]]:
        """As `classification.adapt.adapt` of each of the B images; and how far each one's context moved.

        FloatingPointError: a number of any of them is not finite, or a gradient overflows at the first loss scale.
        """
        policy, state, method = self.policy, self.state, self.method
        with state.episode():
            inputs = self.features(images)  # [B, N, D]
            with torch.no_grad():
                view_logits = policy.logits(inputs, at_start=True)  # [B, N, C]
            selected = confident_views(view_logits, method.num_selected)  # [B, S]
            anchor = self._reward_features(images, selected)
            trusted = inputs.take_along_dim(selected.unsqueeze(-1), dim=1)  # [B, S, D]
            steps: list[list[Step]] = []
            for number in range(self.config.steps):
                steps.append(self._step(policy.logits(trusted, at_start=number == 0), anchor))
                state.forget_gradients()
            with torch.no_grad():
                after = policy.logits(inputs[:, :1], at_start=not steps)[:, 0]  # [B, C]
            moved = (policy.context - state.start["context"]).detach().flatten(1).norm(dim=1)
            episodes = [
                Episode(view_logits[i, 0], after[i], view_logits[i], selected[i], [step[i] for step in steps])
                for i in range(len(images))
            ]
            episodes, distances = state.read((episodes, list(moved)))
            for episode in episodes:
                check_finite([step.loss for step in episode.steps], episode.after)
        return episodes, distances

    def _step(self, logits: Tensor, anchor: list[Tensor]) -> list[Step]:
        """One update of all contexts. [B, S, C], M x [B, S, D]"""
        objective, weight = self.method.objective, self.config.entropy_weight
        kinds: list[type[Step]] = []

        def of_one(logits: Tensor, *anchor: Tensor) -> dict[str, Tensor]:
            step = objective.step(logits, objective.observe(anchor))
            if weight:
                step.loss = step.loss + weight * averaged_entropy(logits)
            kinds.append(type(step))
            return vars(step)

        found = torch.vmap(of_one)(logits, *anchor)
        self.state.step(found["loss"].sum())
        fields = [{name: value[i].detach() for name, value in found.items()} for i in range(len(logits))]
        return [kinds[0](**values) for values in fields]

    @torch.no_grad()
    def features(self, images: Sequence[Views]) -> Tensor:
        """The policy's, of all views in one pass, unless they are in a bank. [B, N, D]"""
        clip = self.policy.clip
        if any(views.has_bank for views in images):
            return torch.stack([views.features for views in images])
        pixels = torch.cat([resize_images(views.pixels, clip.image_size) for views in images])
        return clip.encode_images(pixels).unflatten(0, (len(images), -1))

    def _reward_features(self, images: Sequence[Views], selected: Tensor) -> list[Tensor]:
        """Of the trusted views. [B, S] -> M x [B, S, D]"""
        reward = self.method.context.reward
        if reward is None:
            return []
        if any(views.has_bank for views in images):
            of_each = [views.reward_features(rows) for views, rows in zip(images, selected, strict=True)]
            return [torch.stack(features) for features in zip(*of_each, strict=True)]
        pixels = torch.cat([views.pixels[rows] for views, rows in zip(images, selected, strict=True)])
        return [features.unflatten(0, selected.shape) for features in reward.encode_images(pixels)]
