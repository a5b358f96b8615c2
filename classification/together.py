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
        if self.prompts is not None:
            self.state = build_state(self.config, self.prompts, method.context.scale_loss)
            self.state.updates.looks = False
        elif policy.couples_views or not isinstance(policy, EncoderPolicy):
            raise ValueError("images_at_once is not for CoCoOp, nor for a policy with BatchNorm; leave it out")

    def stages(self) -> Iterable[Stage]:
        """Whose time is to be told apart in the records."""
        if self.prompts is not None:
            yield from [(self, "features", "policy"), (self.prompts, "logits", "policy")]
            yield from [(self.prompts, "class_features", "text"), (self.state, "step", "update")]
            yield (self.state, "restore", "reset")

    @torch.no_grad()
    def look(self, images: Sequence[Views]) -> None:
        """Leave in each image's views what their episode begins with; the tuned tower is put back for it."""
        policy, state = self.method.policy, self.method.state
        state.restore(state.start)
        policy.set_mode("adapting")
        joined = self._joined(images)
        logits = policy.logits(policy.prepare(joined), at_start=True).unflatten(0, (len(images), -1))  # [B, N, C]
        # Image by image, as its episode will, so that views of equal entropy come in the same order.
        selected = torch.stack([confident_views(of_one, self.method.num_selected) for of_one in logits])  # [B, S]
        reward = self._reward_features(images, joined, selected)
        for i, views in enumerate(images):
            views.known = logits[i], [features[i] for features in reward]

    def adapt(self, images: Sequence[Views]) -> tuple[list[Episode], list[Tensor]]:
        """As `classification.adapt.adapt` of each of the B images; and how far each one's context moved.

        FloatingPointError: a number of any of them is not finite, or a gradient overflows at the first loss scale.
        """
        policy, state = self.prompts, self.state
        assert policy is not None
        with state.episode():
            joined = self._joined(images)
            inputs = self.features(images, joined)  # [B, N, D]
            with torch.no_grad():
                view_logits = policy.logits(inputs, at_start=True)  # [B, N, C]
            selected = confident_views(view_logits, self.method.num_selected)  # [B, S]
            anchor = self._reward_features(images, joined, selected)
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

    def _joined(self, images: Sequence[Views]) -> Views:
        """The views of all images as those of one."""
        return self.method.context.views(lambda: torch.cat([views.pixels for views in images]))

    def features(self, images: Sequence[Views], joined: Views) -> Tensor:
        """The policy's, of all views in one pass, unless some are in a bank. [B, N, D]"""
        if any(views.has_bank for views in images):
            return torch.stack([views.features for views in images])
        return joined.features.unflatten(0, (len(images), -1))

    def _reward_features(self, images: Sequence[Views], joined: Views, selected: Tensor) -> list[Tensor]:
        """The reward models', of the views that each image trusts. [B, S] -> M x [B, S, D]"""
        if any(views.has_bank for views in images):
            of_each = [views.reward_features(rows) for views, rows in zip(images, selected, strict=True)]
            return [torch.stack(features) for features in zip(*of_each, strict=True)]
        num_views = len(joined.pixels) // len(images)
        rows = (torch.arange(len(images), device=selected.device).unsqueeze(1) * num_views + selected).flatten()
        return [features.unflatten(0, selected.shape) for features in joined.reward_features(rows)]
