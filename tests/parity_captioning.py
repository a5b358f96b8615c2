"""Replay of the captioning traces (kind E): mapper, noise, language model, training, beam search, adaptation."""

from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import OPTConfig, OPTForCausalLM

from captioning.adapt import Answer, Picture, Step, adapt
from captioning.build import build_captioner, build_method, image_features, load_tokenizer
from captioning.captioner import Captioner
from captioning.checkpoints import load_lm, load_strictly
from captioning.config import CaptioningConfig, DecodingConfig
from captioning.generate import Hypothesis, beam_search
from captioning.mapper import TransformerMapper, inject_noise
from captioning.training.train import build_optimizer, training_loss
from tests.golden_files import Golden, Samples, checksums, official_settings, stack


def replay_mapper(golden: Golden, trace: str) -> dict[str, Any]:
    """Outputs and gradients of the three mappers."""
    meta, inputs = golden.meta(trace), golden.arrays(trace)
    result: dict[str, Any] = {}
    for kind, names in meta["param_names"].items():
        x = golden.tensor(inputs["input/x_patch" if kind == "patch" else "input/x"])
        if kind == "patch":
            sizes = [meta["config"][name] for name in ("dim_clip", "emb", "prefix_length", "num_layers")]
            mapper = TransformerMapper(*sizes, clip_length="patches").double()
            load_strictly(mapper, weights(golden, "cap_mapper_patch"), "the patch mapper")
        else:
            mapper = tiny_captioner(golden, meta, kind).mapper
        out = mapper(x)  # [B, P, W]
        (out * golden.tensor(inputs["input/coef"])[: len(x)]).sum().backward()
        gradients = {name: parameter.grad for name, parameter in mapper.named_parameters()}
        result[f"{kind}/out"] = result[f"{kind}/out_eval"] = out.flatten(1) if kind == "mlp" else out
        result[f"{kind}/grad_checksum"] = checksums(gradients[name] for name in names)
        result |= {f"{kind}/grad/{name}": gradient for name, gradient in gradients.items()}
    return result


def replay_noise(golden: Golden, trace: str) -> dict[str, Any]:
    """CapDec's noise from recorded random numbers."""
    arrays = golden.arrays(trace)
    x, normal, uniform = (golden.tensor(arrays[f"input/{name}"]) for name in ("x", "normal", "uniform"))
    variance = golden.meta(trace)["variance"]
    return {
        "gaussian": inject_noise(x, variance, normal),
        "gaussian_dont_norm": inject_noise(x, variance, normal, normalize_first=False),
        "uniform_ball": inject_noise(x, variance, normal, uniform),
        "uniform_ball_dont_norm": inject_noise(x, variance, normal, uniform, normalize_first=False),
        "zero_variance": inject_noise(x, 0.0, normal),
    }


def replay_opt_forward(golden: Golden, trace: str) -> dict[str, Any]:
    """The language model after a prefix, under several attention masks."""
    meta, arrays = golden.meta(trace), golden.arrays(trace)
    captioner, mlp = tiny_captioner(golden, meta, "transformer"), tiny_captioner(golden, meta, "mlp")
    tokens, mask = captioner.tokenize(meta["texts"])
    recorded = [torch.from_numpy(arrays[f"input/{name}"]) for name in ("tokens", "attention_mask", "odd_mask")]
    features = golden.tensor(arrays["input/prefix"])
    with torch.no_grad():
        prefix, text = captioner.prefix(features), captioner.embed(tokens)
        assert torch.equal(tokens, recorded[0]) and torch.equal(mask, recorded[1][:, prefix.shape[1] :])
        whole = torch.cat([prefix, text], dim=1)
        masked = captioner.run(whole, recorded[1])[0]
        # A position with nothing real up to it has no defined output; versions of transformers differ there.
        sees = recorded[2].cumsum(dim=1) > 0  # [B, L]
        odd = captioner.run(whole, recorded[2])[0]
        odd = torch.where(sees[..., None], odd, golden.tensor(arrays["logits_odd_mask"]))
        labels = F.pad(tokens, (prefix.shape[1], 0))  # zeros for the prefix, which are targets too
        return {
            "query_embeds": prefix,
            "logits_masked": masked,
            "logits_query_embeds_path": masked,
            "logits_nomask": captioner.run(whole, torch.ones_like(recorded[1]))[0],
            "logits_text_only": captioner.run(text, mask)[0],
            "logits_odd_mask": odd,
            "logits_masked_mlp": mlp.run(torch.cat([mlp.prefix(features), text], dim=1), recorded[1])[0],
            "per_token_loss_pad1_ignore0": captioner.token_losses(prefix, tokens, mask),
            "labels_loss": F.cross_entropy(masked[:, :-1].flatten(0, 1), labels[:, 1:].flatten()),
        }


def replay_train(golden: Golden, trace: str) -> dict[str, Any]:
    """Training of the mapper, update by update."""
    meta, arrays = golden.meta(trace), golden.arrays(trace)
    hyper, optimizer_options = meta["hyper"], meta["optimizer"]
    captioner = tiny_captioner(golden, meta, "transformer")
    order = arrays["input/order"].reshape(-1, hyper["bs"])  # [epochs, items] -> [iterations, B]
    embeddings = golden.tensor(arrays["input/embeddings"])
    if hyper["normalize_prefix"]:
        embeddings = F.normalize(embeddings, dim=-1)
    optimizer, schedule = build_optimizer(
        captioner, hyper["lr"], optimizer_options["weight_decay"], optimizer_options["eps"],
        hyper["warmup_steps"], len(order),
    )  # fmt: skip
    constants, tuned = captioner.mapper.prefix_const, [captioner.mapper.get_parameter(n) for n in meta["param_names"]]
    iterations = Samples()
    masks = arrays["input/mask"][..., meta["config"]["prefix_length"] :]
    for items, tokens, mask, noise in zip(order, arrays["input/tokens"], masks, arrays["input/noise"], strict=True):
        batch = embeddings[torch.from_numpy(items)]
        plain = not hyper["normalize_prefix"]
        noisy = inject_noise(batch, hyper["noise_variance"], golden.tensor(noise), normalize_first=plain)
        loss = training_loss(captioner, noisy, torch.from_numpy(tokens), torch.from_numpy(mask).long())
        optimizer.zero_grad()
        loss.backward()
        iterations.add({"prefix_batches": batch, "loss": loss, "lr": optimizer.param_groups[0]["lr"]})
        optimizer.step()
        schedule.step()
        norms = torch.stack([p.grad.norm() for p in tuned])
        iterations.add({"grad_norm": norms, "grad_prefix_const": constants.grad, "prefix_const_after": constants})
        iterations.add({"mapper_checksum": checksums(tuned)})
    return iterations.stacked()


def replay_beam(golden: Golden, trace: str) -> dict[str, Any]:
    """Beam search with all its options; the texts of the trace are checked too."""
    meta, arrays = golden.meta(trace), golden.arrays(trace)
    captioner = tiny_captioner(golden, meta, "transformer")
    with torch.no_grad():
        prefix = captioner.prefix(F.normalize(golden.tensor(arrays["input/prefix"]), dim=-1))
    result: dict[str, Any] = {"prefix_embed": prefix}
    for run in meta["runs"]:
        options = run["generate_kwargs"]
        assert (options["eos_token_id"], run["input_ids"][0]) == (captioner.stop, [captioner.bos])
        decoding = DecodingConfig(
            max_new_tokens=options["max_new_tokens"], length_penalty=options["length_penalty"],
            repetition_penalty=options["repetition_penalty"], min_length=options["min_length"],
        )  # fmt: skip
        groups = [beam_search(captioner, prefix[group], options["num_beams"], decoding) for group in run["groups"]]
        kept = [[h for image in group for h in image[: options["num_return_sequences"]]] for group in groups]
        assert [captioner.decode([h.tokens for h in group]) for group in kept] == run["texts"]
        ids = [_ids(captioner, group, decoding.max_new_tokens) for group in kept]
        result[f"{run['name']}/width"] = torch.tensor([group.shape[1] for group in ids])
        result[f"{run['name']}/ids"] = stack(ids)
        if options["num_beams"] > 1:
            result[f"{run['name']}/hyp_scores"] = torch.stack([torch.stack(list(map(_scores, g))) for g in groups])
    return result


def config_of(meta: dict[str, Any]) -> CaptioningConfig:
    """Our config of an official run."""
    args = meta["args"]
    own = {
        "checkpoint": "", "method": "rlcf", "policy": args["clip_model_type"], "final_beams": meta["final_num_beams"],
        "normalize_prefix": args["normalize_prefix"], "num_candidates": args["sample_k"],
        "sampling": "nucleus" if args["use_nucleus_sampling"] else "beam",
        "decoding": {"max_new_tokens": meta["max_new_tokens"]},
    }  # fmt: skip
    return CaptioningConfig.of(official_settings(meta) | _mapper_settings(meta["config"], meta["mapping"]) | own)


class Adaptation:
    """RLCF on a sequence of images, each step of it; the texts of the trace are checked too."""

    def __init__(self, golden: Golden, trace: str) -> None:
        self.meta = golden.meta(trace)
        self.config = config_of(self.meta)
        self.images = golden.tensor(golden.arrays("inputs_cap")["images"][: self.meta["n_images"]])
        self.captioner = tiny_captioner(golden, self.meta, self.meta["mapping"])
        self.clip = golden.clip(self.config.policy)
        rewards = [golden.clip(model.name) for model in self.config.reward.models]
        method: Any = build_method(self.config, self.captioner, rewards)
        self.objective, self.state = method.objective, method.state
        self.samples = Samples()
        self.first_logits: Tensor | None = None

    def run(self) -> dict[str, Any]:
        """All images."""
        episodes = [self._image(image[None]) for image in self.images]
        assert [[step.captions for step in episode.steps] for episode in episodes] == self.meta["sampled_texts"]
        assert [episode.caption for episode in episodes] == [row["caption"] for row in self.meta["results_json"]]
        return {"first_step_logits": self.first_logits, **self.samples.stacked()}

    def _image(self, image: Tensor) -> Answer:
        steps, features = Samples(), image_features(self.clip, image, self.config.normalize_prefix)
        picture = Picture(image, features, torch.Generator().manual_seed(self.config.seed))
        parts, add = (self.captioner, self.state, self.objective), lambda step: steps.add(self._step(step))
        episode = adapt(*parts, picture, self.config.steps, on_step=add)
        self.samples.add(steps.stacked())
        names = self.meta["state_names"]
        if self.config.momentum is not None:
            self.samples.add({"momentum_checksum": checksums(self.state.average[name] for name in names)})
        self.samples.add({
            "final_prefix_embed": self.captioner.prefix(features)[0], "prefix": features[0],
            "reward_image_features": self.objective.observe(image)[0][0],
            "final_ids": _ids(self.captioner, episode.hypotheses[:1], self.config.decoding.max_new_tokens)[0],
            "final_hyp_scores": _scores(episode.hypotheses), "update_counter": self.state.num_samples,
            "reset_checksum": checksums(self.state.start[name] for name in names),
        })  # fmt: skip
        return episode

    def _step(self, step: Step) -> dict[str, Tensor]:
        captioner, reward = self.captioner, self.objective.reward
        if self.first_logits is None:
            with torch.no_grad():
                self.first_logits = captioner.token_logits(step.prefix, step.tokens, step.mask).flatten(0, 1)
        parameters = dict(captioner.mapper.named_parameters())
        tuned, watched = [parameters[n] for n in self.meta["param_names"]], parameters[self.meta["grad0_param"]]
        prefix_mask = step.mask.new_ones(len(step.mask), step.prefix.shape[1])
        return {
            "sampled_ids": _ids(captioner, step.proposals, self.config.decoding.max_new_tokens),
            "hyp_scores": _scores(step.proposals),
            "reward_tokens": reward.models[0].tokenize(step.captions),
            "reward_text_features": reward.encode_texts(step.captions)[0],
            "clipscore": step.rewards, "rewards": step.advantages,
            "tokens": step.tokens, "attention_mask": torch.cat([prefix_mask, step.mask], dim=1),
            "token_loss": step.token_losses, "loss": step.loss,
            "prefix_embed": step.prefix,
            "grad_norm": torch.stack([p.grad.norm() for p in tuned]),
            "grad0": watched.grad, "param0": watched,
            "mapper_checksum": checksums(tuned),
        }  # fmt: skip


def in_float64(lm: nn.Module) -> nn.Module:
    """A language model in float64; transformers 4.45 makes its masks in the default type, which must be wide enough."""
    lm.register_forward_pre_hook(lambda *_: torch.set_default_dtype(torch.float64))
    lm.register_forward_hook(lambda *_: torch.set_default_dtype(torch.float32), always_call=True)
    return lm.double()


def tiny_captioner(golden: Golden, meta: dict[str, Any], kind: str) -> Captioner:
    """The recorded captioner in float64, put together as in a run."""
    sizes, tokenizer = meta["config"], load_tokenizer(golden.folder / "opt_tokenizer")
    config = config_like(_mapper_settings(sizes, kind))
    lm = OPTForCausalLM(
        OPTConfig(
            vocab_size=sizes["vocab"], hidden_size=sizes["hidden"], word_embed_proj_dim=sizes["emb"],
            num_hidden_layers=sizes["layers"], num_attention_heads=sizes["heads"], ffn_dim=sizes["ffn"],
            max_position_embeddings=sizes["max_pos"], bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    load_lm(lm, weights(golden, "cap_opt"))
    lm = in_float64(lm).to(golden.device)
    return build_captioner(config, sizes["dim_clip"], lm, tokenizer, weights(golden, f"cap_mapper_{kind}"))


def config_like(changes: dict[str, Any]) -> CaptioningConfig:
    """A zero-shot config with these settings."""
    roots = {"data_root": "", "pretrained_root": "", "output_root": "", "checkpoint": ""}
    fixed = {"dataset": "golden", "dataset_files": {"annotations": ""}, "method": "zero_shot"}
    return CaptioningConfig.of({**fixed, **roots, **changes})


def _mapper_settings(sizes: dict[str, Any], kind: str) -> dict[str, Any]:
    own = {"mapper_layers": sizes["num_layers"], "clip_length": sizes["clip_length"]} if kind == "transformer" else {}
    return {"mapper": kind, "prefix_length": sizes["prefix_length"], **own}


def weights(golden: Golden, name: str) -> dict[str, Tensor]:
    """The recorded weights of a mapper or the language model."""
    return load_file(golden.folder / f"{name}.safetensors")


def _ids(captioner: Captioner, hypotheses: list[Hypothesis], max_new_tokens: int) -> Tensor:
    """Recorded form of generated ids: start token, caption, stop token if it fits, padding. [sequences, width]"""
    width = min(max(len(h.tokens) for h in hypotheses) + 1, max_new_tokens) + 1
    rows = [[captioner.bos, *h.tokens, captioner.stop][:width] for h in hypotheses]
    return torch.tensor([row + [captioner.tokenizer.pad_token_id] * (width - len(row)) for row in rows])


def _scores(hypotheses: list[Hypothesis]) -> Tensor:
    return torch.tensor([h.score for h in hypotheses], dtype=torch.float64)
