"""What we rely on in open_clip, transformers and torch: where one changes a name, these say which, and who uses it."""

import functools
import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
import torch
import transformers

ROOT = Path(__file__).parent.parent.parent
# File of ours | where it looks: the names there, in brackets the parameters that it gives by name | ...
RELIED_ON = """
clipscore/clip_model.py | clip: logit_scale token_embedding.weight attn_mask ln_final text_projection encode_text | clip.visual: image_size output_dim | custom.text: token_embedding.weight output_dim | torch._functorch.config: donated_buffer
clipscore/lean_blocks.py | open_clip.transformer: QuickGELU VisionTransformer._embeds ResidualAttentionBlock.attention(q_x,k_x,v_x,attn_mask) ResidualAttentionBlock.forward(q_x,k_x,v_x,attn_mask) | clip.visual: pool_type attn_pool output_tokens ln_post proj transformer.resblocks | clip: text_pool_type attn_mask | custom.text: pool_type cls_emb attn_mask | clip.transformer.resblocks.0: attn.in_proj_weight attn.in_proj_bias attn.out_proj attn.num_heads attn.head_dim ln_1 ls_1 ln_2 ls_2 mlp | torch.ops.aten: softplus_backward silu_backward
clipscore/models/load.py | open_clip: create_model(pretrained,force_quick_gelu,load_weights,pretrained_text) CLIP load_checkpoint tokenize(context_length) SimpleTokenizer(context_length) model.build_model_from_openai_state_dict(quick_gelu,cast_dtype) tokenizer.HFTokenizer(context_length) | tag: quick_gelu
clipscore/models/files.py | open_clip: download_pretrained(prefer_hf_hub) list_pretrained list_models get_pretrained_cfg
clipscore/models/descriptions.py | open_clip: get_model_config list_pretrained_tags_by_model | tag: mean std interpolation resize_mode | theirs: projection_dim text_config.vocab_size text_config.max_position_embeddings text_config.hidden_act vision_config.patch_size vision_config.hidden_size vision_config.intermediate_size vision_config.num_hidden_layers vision_config.num_attention_heads
clipscore/models/pickles.py | torch: serialization.safe_globals storage._load_from_bytes _utils._rebuild_tensor_v2 _utils._rebuild_parameter
clipscore/data/images.py | open_clip: image_transform(mean,std,interpolation,resize_mode)
clipscore/data/reading.py | torch.utils.data: DataLoader(num_workers,timeout,multiprocessing_context,pin_memory)
clipscore/episodic.py | torch: _foreach_copy_ _foreach_sub _foreach_norm _foreach_mul_ _foreach_add_
classification/data/class_names.py | open_clip.zero_shot_metadata: IMAGENET_CLASSNAMES
classification/texts.py | open_clip.zero_shot_metadata: OPENAI_IMAGENET_TEMPLATES SIMPLE_IMAGENET_TEMPLATES
captioning/captioner.py | opt: get_input_embeddings forward(inputs_embeds,attention_mask,past_key_values,use_cache) | opt.model.decoder.layers.0.self_attn: q_proj k_proj v_proj | transformers.DynamicCache: reorder_cache get_seq_length
captioning/build.py | transformers: AutoModelForCausalLM.from_pretrained AutoTokenizer.from_pretrained | transformers.utils.logging: disable_progress_bar set_verbosity_error
""".strip().splitlines()  # noqa: E501


@functools.cache
def roots():
    """Where a name may begin: the libraries, and what they make."""
    text, vision = dict(width=8, heads=2, layers=1), dict(width=8, head_width=4, layers=1, image_size=8, patch_size=4)
    sizes = dict.fromkeys(("hidden_size", "ffn_dim", "word_embed_proj_dim", "vocab_size", "num_hidden_layers"), 8)
    return {
        **{module.__name__: module for module in (open_clip, torch, transformers)},
        "clip": open_clip.CLIP(8, vision, text),
        "custom": open_clip.CustomTextCLIP(8, vision, text),
        "tag": open_clip.get_pretrained_cfg("ViT-B-32", "openai"),
        "theirs": transformers.CLIPConfig().to_dict(),
        "opt": transformers.OPTForCausalLM(transformers.OPTConfig(**sizes, num_attention_heads=2)),
    }


def look_up(path):
    """What is at a path with dots; LookupError at the first part that is not there."""
    at, seen = roots(), ""
    for part in path.split("."):
        seen = f"{seen}.{part}".lstrip(".")
        if isinstance(at, dict):
            at = at[part]
        elif hasattr(at, part):
            at = getattr(at, part)
        else:
            at = importlib.import_module(seen)
    return at


def broken():
    """One sentence for each name that is not what it was."""
    found = []
    for line in RELIED_ON:
        file, *groups = line.split(" | ")
        for where, names in (group.split(": ") for group in groups):
            for name, parameters in re.findall(r"([\w.]+)(?:\((.*?)\))?", names):
                try:
                    thing = look_up(f"{where}.{name}")
                    has = set(inspect.signature(thing).parameters) if parameters else set()
                    found += [f"{file} gives {where}.{name} a {p}" for p in parameters.split(",") if p and p not in has]
                except (LookupError, ImportError):
                    found.append(f"{file} uses {where}.{name}")
    return found


def test_every_name_is_there_and_the_file_uses_it():
    assert broken() == []
    for line in RELIED_ON:
        file, *groups = line.split(" | ")
        words = re.findall(r"[a-z_]\w+", " ".join(group.split(": ")[1] for group in groups), re.IGNORECASE)
        assert [word for word in words if word not in (ROOT / file).read_text()] == []


def test_a_name_or_parameter_that_is_gone_is_said_with_its_place(monkeypatch):
    monkeypatch.delattr(open_clip.transformer.VisionTransformer, "_embeds")
    monkeypatch.setattr(open_clip, "tokenize", lambda texts, length=77: None)
    assert broken() == [
        "clipscore/lean_blocks.py uses open_clip.transformer.VisionTransformer._embeds",
        "clipscore/models/load.py gives open_clip.tokenize a context_length",
    ]


PREDICT = [f"{task}.predict --help" for task in ("classification", "retrieval", "captioning")]


@pytest.mark.parametrize("command", ["scripts.run --config configs/retrieval/kd.yaml", "scripts.doctor", *PREDICT])
def test_a_package_that_is_not_there_is_one_sentence(tmp_path, command):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\")")
    words, environment = [sys.executable, "-m", *command.split()], os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert re.fullmatch(r"error: No module named 'torch' \(.*\): python -m pip install -r .*\n", done.stderr)


def test_no_run_waits_for_packages_that_it_does_without():
    words = """if True:
        import sys, classification.task, retrieval.task
        assert not {"timm", "transformers", "huggingface_hub", "scipy"} & set(sys.modules)
        from clipscore.models.backends import bring, open_clip
        bring("huggingface_hub")
        assert open_clip.pretrained.has_hf_hub()
    """
    subprocess.run([sys.executable, "-c", words], cwd=ROOT, check=True)


def test_a_command_does_its_work_where_nobody_listens():
    words = f"{sys.executable} -m scripts.run --help >&- 2>&-"  # as some schedulers and services start it
    assert subprocess.run(["sh", "-c", words], cwd=ROOT).returncode == 0
