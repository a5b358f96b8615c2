"""Prompts with tunable context vectors around the class names.

Source: CoOp, Zhou et al. 2022 (arXiv 2109.01134); CoCoOp, Zhou et al. 2022 (arXiv 2203.05557); TPT, Shu et al. 2022
(arXiv 2209.07511); official TPT/clip/custom_clip.py, TPT/clip/cocoop.py.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clipscore.clip_model import ClipModel, end_of_text
from clipscore.data.checks import list_some
from clipscore.models.pickles import load_tensors

PromptStart = tuple[Tensor, dict[str, Tensor]]  # CoOp's context [n_ctx, W], and CoCoOp's meta network or nothing

SAME_START = 0.01  # relative distance of two start tokens that differ by the rounding to fp16 only
META_NET = ["linear1.bias", "linear1.weight", "linear2.bias", "linear2.weight"]
PLACEHOLDER = "X"  # any word of one token: its embedding is replaced by a context vector


def class_prompts(prompt: str, class_names: Sequence[str]) -> list[str]:
    """Text prompts: "a photo of a" and "great_white_shark" give "a photo of a great white shark.".

    Underscores of class names become spaces. The prompt is taken as it is, underscores included. A "[CLS]" in it, which
    marks the place of the class name for tuned contexts, is left out: texts have the name at the end.
    """
    words = " ".join(word for word in prompt.split() if word != "[CLS]")
    return [f"{words} {name.replace('_', ' ')}." for name in class_names]


class PromptLearner(nn.Module):
    """Token embeddings of all class prompts as a function of shared context vectors.

    Args:
        clip: whose token embeddings are used.
        class_names: C names.
        prompt: words that the context starts from, with "[CLS]" between two of them for position "middle".
        position: of the class name: "end", "middle" or "front".
        context: vectors to start from instead of the words', e.g. CoOp's. [n_ctx, W]

    Attributes:
        context: the tuned vectors. [n_ctx, W]
        eot: position of each prompt's end token, on the CPU. [C]
        token_ids: of the prompts, before the class names are moved. [C, L]
        num_shared: so many leading positions are the same in all prompts: start token, and context before the name.

    Raises:
        ValueError: no context words; a context of another width; an unknown position.
    """

    embeddings: Tensor
    order: Tensor

    def __init__(
        self,
        clip: ClipModel,
        class_names: Sequence[str],
        prompt: str,
        position: str = "end",
        context: Tensor | None = None,
    ) -> None:
        super().__init__()
        words = [word for word in prompt.split() if word != "[CLS]"]
        self.num_context = _num_tokens(clip, " ".join(words)) if context is None else len(context)
        if self.num_context == 0:
            raise ValueError(f"prompt tuning needs at least one context word, got prompt={prompt!r}")
        if context is not None and context.shape[1] != clip.token_width:
            widths = f"context vectors of width {context.shape[1]}, but {clip.name} has width {clip.token_width}"
            raise ValueError(f"the prompt start has {widths}; it is of another CLIP (none is published for ViT-L/14)")
        if _num_tokens(clip, " ".join(words)) != self.num_context:
            words = [PLACEHOLDER] * self.num_context
        self.token_ids = clip.tokenize(class_prompts(" ".join(words), class_names))  # [C, L]
        self.eot = end_of_text(self.token_ids).cpu()
        length = int(self.eot.max()) + 1
        self.register_buffer("embeddings", clip.embed_tokens(self.token_ids[:, :length]).detach(), persistent=False)
        lengths = [_num_tokens(clip, name.replace("_", " ")) for name in class_names]
        before = {"end": self.num_context, "front": 0, "middle": _words_before_name(clip, prompt)}
        if position not in before:
            raise ValueError(f"position must be end, middle or front, got {position!r}")
        self.num_shared = min(1 + before[position], int(self.eot.min()))
        room = (self.eot - 1 - self.num_context).tolist()  # a name that is too long was cut in front of the end token
        order = [
            _token_order(length, self.num_context, min(name, most), before[position])
            for name, most in zip(lengths, room, strict=True)
        ]
        self.register_buffer("order", torch.tensor(order, device=clip.device), persistent=False)  # [C, L]
        self.moves_names = before[position] != self.num_context
        words_context = self.embeddings[0, 1 : 1 + self.num_context]
        self.context = nn.Parameter((words_context if context is None else context.to(words_context)).clone())

    def build(self, context: Tensor, rows: Tensor) -> Tensor:
        """Token embeddings of some prompts for each context. [..., n_ctx, W], [..., R] -> [... * R, L, W]

        They are cut at the longest of these prompts; at the longest of all where `rows` are not on the CPU.
        """
        length = int(self.eot[rows].max()) + 1 if rows.is_cpu else self.embeddings.shape[1]
        rows = rows.to(context.device, non_blocking=True)
        spread = context.unsqueeze(-3).expand(*rows.shape, -1, -1).flatten(0, -3)  # [... R, n_ctx, W]
        rows = rows.flatten()
        embeddings = self.embeddings[rows, :length]  # [... R, L, W]
        prompts = torch.cat([embeddings[:, :1], spread, embeddings[:, 1 + self.num_context :]], dim=1)
        if not self.moves_names:
            return prompts
        order = self.order[rows, :length].unsqueeze(-1).expand_as(prompts)
        return prompts.gather(1, order)


class ConditionalContext(nn.Module):
    """CoCoOp's context: shared vectors plus a shift that a small network computes from the image feature.

    Args:
        context: shared vectors. [n_ctx, W]
        meta_net: weights of the two linear layers, by their name in CoCoOp's checkpoints.
    """

    context: Tensor
    linear1_weight: Tensor
    linear1_bias: Tensor
    linear2_weight: Tensor
    linear2_bias: Tensor

    def __init__(self, context: Tensor, meta_net: dict[str, Tensor]) -> None:
        super().__init__()
        self.register_buffer("context", context)
        for name, tensor in meta_net.items():
            self.register_buffer(name.replace(".", "_"), tensor)

    def forward(self, image_feature: Tensor) -> Tensor:
        """[D] -> [n_ctx, W]"""
        hidden = F.relu(F.linear(image_feature, self.linear1_weight, self.linear1_bias))
        return self.context + F.linear(hidden, self.linear2_weight, self.linear2_bias)


def load_prompt_start(path: str | Path, roots: Sequence[Path] = ()) -> tuple[Tensor, dict[str, Tensor]]:
    """Read a CoOp or CoCoOp checkpoint.

    Args:
        path: a file, or a folder with `prompt_learner/model.pth.tar-<epoch>` (the last epoch is taken).
        roots: folders that a relative path may start from, besides the working directory.

    Returns:
        Context vectors [n_ctx, W], and the weights of CoCoOp's meta network (empty for CoOp).

    Raises:
        FileNotFoundError: with every path tried.
        ValueError: the file holds no shared context vectors, or an incomplete meta network.
    """
    file, state = _read_state(path, roots)
    if state["ctx"].ndim != 2:
        found = f"a context of shape {list(state['ctx'].shape)}, expected [n_ctx, width]"
        of_each = "; one for each class (CSC) is not shared, take a file of CSC=False" * (state["ctx"].ndim == 3)
        raise ValueError(f"{file} holds {found}{of_each}")
    prefix = "meta_net."
    meta_net = {key.removeprefix(prefix): value.detach() for key, value in state.items() if key.startswith(prefix)}
    if meta_net and sorted(meta_net) != META_NET:
        raise ValueError(f"{file} holds a meta network with {sorted(meta_net)}; CoCoOp's has {META_NET}")
    return state["ctx"].detach(), meta_net


def check_same_clip(clip: ClipModel, path: str | Path, roots: Sequence[Path] = ()) -> None:
    """ValueError for a context that was trained with another CLIP, whose start token CoOp stores beside it."""
    file, state = _read_state(path, roots)
    start, own = state.get("token_prefix"), clip.embed_tokens(clip.tokenize([""])[:, :1])[0, 0]  # [C, 1, W], [W]
    if isinstance(start, Tensor) and start.shape[-1] == len(own):
        distance = (start.reshape(-1, len(own))[0].to(own) - own).norm()
        if distance > SAME_START * own.norm():
            raise ValueError(f"{file} was trained with another CLIP than {clip.name}: its start token is not the same")


def _read_state(path: str | Path, roots: Sequence[Path]) -> tuple[Path, dict[str, Tensor]]:
    file = _find_checkpoint(Path(path).expanduser(), roots)
    checkpoint = load_tensors(file)
    state = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not isinstance(state.get("ctx"), Tensor) or not state["ctx"].isfinite().all():
        found = list_some(sorted(state)) if isinstance(state, dict) else f" a {type(checkpoint).__name__}"
        raise ValueError(f"{file} holds no context: `state_dict` with a finite `ctx` expected, found{found}")
    return file, state


def _find_checkpoint(path: Path, roots: Sequence[Path]) -> Path:
    tried = [path, *(root / path for root in roots)]
    for candidate in tried:
        if candidate.is_file():
            return candidate
        epochs = [f for f in candidate.glob("prompt_learner/model.pth.tar-*") if f.name.rsplit("-", 1)[1].isdigit()]
        if epochs:
            return max(epochs, key=lambda file: int(file.name.rsplit("-", 1)[1]))
    raise FileNotFoundError(
        f"no CoOp or CoCoOp checkpoint at {path}: a file, or a folder with prompt_learner/model.pth.tar-<epoch>, was "
        f"expected. Tried: {', '.join(str(p.absolute()) for p in tried)}"
    )


def _num_tokens(clip: ClipModel, text: str) -> int:
    return int(end_of_text(clip.tokenize([text]))[0]) - 1  # the start token is not counted


def _words_before_name(clip: ClipModel, prompt: str) -> int:
    return _num_tokens(clip, prompt.split("[CLS]")[0]) if "[CLS]" in prompt else 0


def _token_order(length: int, num_context: int, name_length: int, before: int) -> list[int]:
    """Which token of "<start> context name ." stands at each place once `before` context tokens precede the name."""
    context = list(range(1, 1 + num_context))
    name = list(range(1 + num_context, 1 + num_context + name_length))
    moved = [0, *context[:before], *name, *context[before:]]
    return (moved + list(range(len(moved), length)))[:length]
