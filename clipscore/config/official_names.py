"""What the official code, and habit, call the settings of a run: for those who type the name they know."""

from __future__ import annotations

OFFICIAL_NAMES = {  # a name, in small letters with underscores -> the key it has here
    # the method
    "sample_k": "num_candidates", "k": "num_candidates", "topk": "num_candidates",
    "batch_size": "views.num_views", "n_views": "views.num_views", "num_views": "views.num_views",
    "selection_p": "views.select_fraction",
    "augmix": "views.recipe", "hard_aug": "views.recipe",
    "tta_steps": "steps", "num_steps": "steps",
    "learning_rate": "lr", "wd": "weight_decay",
    "min_entropy_reg": "entropy_weight", "min_entropy_w": "entropy_weight",
    "tune_norm": "tune", "prior_strength": "bn_prior",
    "kd_temperature": "temperature",
    # models
    "arch": "policy", "model": "policy", "clip_model": "policy",
    "reward_arch": "reward.models", "reward_model": "reward.models", "multiple_reward_models": "reward.models",
    "clip_project": "mapper", "mapping_type": "mapper", "language_model": "llm",
    "ctx_init": "prompt", "load": "prompt_start",
    # the reward
    "clipscore_weight": "reward.scale",
    "weighted_scores": "reward.weighted",
    "reward_process": "reward.baseline", "process_batch": "reward.baseline_over",
    "reward_amplify": "reward.standardize",
    # the momentum buffer
    "momentum_update": "momentum", "tta_momentum": "momentum.decay",
    "update_freq": "momentum.update_interval", "update_w": "momentum.mix",
    # the run
    "test_sets": "dataset", "datasets": "dataset", "data": "data_root", "data_dir": "data_root",
    "output": "output_root", "output_dir": "output_root",
    "gpu": "device", "workers": "num_workers", "threads": "num_threads", "num_samples": "limit",
}  # fmt: skip
