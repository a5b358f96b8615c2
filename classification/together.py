"""Several images in flight: what their episodes do alike is done in one pass, with the numbers of one at a time.

A small pass leaves a GPU idle while the host prepares the next, and a CPU between small operations. The views of all
images are selected, and scored, at once; with a tuned prompt each step is one pass too: each image has a context of its
own, and as AdamW goes number by number, the sum of the images' losses moves each as its own loss would.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from classification.adapt import Episode, averaged_entropy
from classification.method import TunedMethod
from classification.policy import EncoderPolicy, PromptPolicy
from classification.seen import Views, confident_views
from clipscore.config.methods import Stage
from clipscore.objectives import Step, check_finite
from clipscore.reward import resize_images
from clipscore.task import build_state


class SeveralPrompts(PromptPolicy):
    """The policy of B images: another one's, with a context for each. [B, n_ctx, W]"""

    def __init__(self, one: PromptPolicy, num_images: int) -> None:
        self.clip, self.learner, self.max_used = one.clip, one.learner, one.max_used
        assert one._start_context is not None and one._start_features is not None
        self._start_context = one._start_context.repeat(num_images, 1, 1)
        self.context = nn.Parameter(self._start_context.clone())
        self.state = self.tuned = {"context": self.context}
        self._start_features = one._start_features.expand(num_images, -1, -1)


class Together:
    """Images of one method, which start alike.

    Attributes:
        prompts: B of them, where prompts are tuned; `adapt` does whole episodes then, elsewhere `look` their beginning.

    ValueError: an image's start depends on it (CoCoOp), or its logits on the images beside it (BatchNorm).
    """

    def __init__(self, method: TunedMethod, num_images: int) -> None:
        self.method, self.config, policy = method, method.context.config, method.policy
        self.prompts = SeveralPrompts(policy, num_images) if type(policy) is PromptPolicy else None
        if self.prompts is None and (policy.couples_views or not isinstance(policy, EncoderPolicy)):
            raise ValueError("images_at_once is not for CoCoOp, nor for a policy with BatchNorm; leave it out")
        if self.prompts is not None:
            self.state = build_state(self.config, self.prompts, method.context.scale_loss)
            self.state.updates.looks = False

    def stages(self) -> Iterable[Stage]:
        """Whose time is to be told apart in the records."""
        if self.prompts is not None:
            yield from [(self.prompts, "logits", "policy"), (self.prompts, "class_features", "text")]
            yield from [(self.state, "step", "update"), (self.state, "restore", "reset")]

    @torch.no_grad()
    def look(self, images: Sequence[Views]) -> None:
        """Leave in each image's views what their episode begins with; the tuned tower is put back for it."""
        policy, state = self.method.policy, self.method.state
        state.restore(state.start)
        policy.set_mode("adapting")
        inputs = policy.prepare(Views(torch.cat([views.pixels for views in images]), policy))  # [B N, 3, H, W]
        logits = policy.logits(inputs, at_start=True).unflatten(0, (len(images), -1))  # [B, N, C]
        reward = self.reward_features(images, confident_views(logits, self.method.num_selected))
        for i, views in enumerate(images):
            views.known = logits[i], [features[i] for features in reward]

    def adapt(self, images: Sequence[Views]) -> tuple[list[Episode], list[Tensor]]:
        """As `classification.adapt.adapt` of each of the B images; and how far each one's context moved.

        FloatingPointError: a number of any of them is not finite, or a gradient overflows at the first loss scale.
        """
        policy, state = self.prompts, self.state
        assert policy is not None
        with state.episode():
            inputs = self.features(images)  # [B, N, D]
            with torch.no_grad():
                view_logits = policy.logits(inputs, at_start=True)  # [B, N, C]
            selected = confident_views(view_logits, self.method.num_selected)  # [B, S]
            anchor = self.reward_features(images, selected)
            trusted = inputs.take_along_dim(selected.unsqueeze(-1), dim=1)  # [B, S, D]
            steps: list[list[Step]] = []
            for number in range(self.config.steps):
                steps.append(self._step(policy.logits(trusted, at_start=number == 0), anchor))
                state.forget_gradients()
            with torch.no_grad():
                after = policy.logits(inputs[:, :1], at_start=not steps)[:, 0]  # [B, C]
            moved = (policy.context - state.start["context"]).detach().flatten(1).norm(dim=1)  # [B]
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
        """The policy's, of all views in one pass, unless some are in a bank. [B, N, D]"""
        clip = self.method.policy.clip
        if any(views.has_bank for views in images):
            return torch.stack([views.features for views in images])
        pixels = torch.cat([resize_images(views.pixels, clip.image_size) for views in images])
        return clip.encode_images(pixels).unflatten(0, (len(images), -1))

    def reward_features(self, images: Sequence[Views], selected: Tensor) -> list[Tensor]:
        """Of the views that each image trusts. [B, S] -> M x [B, S, D]"""
        reward = self.method.context.reward
        if reward is None:
            return []
        if any(views.has_bank for views in images):
            of_each = [views.reward_features(rows) for views, rows in zip(images, selected, strict=True)]
            return [torch.stack(features) for features in zip(*of_each, strict=True)]
        pixels = torch.cat([views.pixels[rows] for views, rows in zip(images, selected, strict=True)])
        return [features.unflatten(0, selected.shape) for features in reward.encode_images(pixels)]
