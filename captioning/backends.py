"""transformers, imported without scipy, whose optimisers it would load for losses of object detection."""

import sys

from clipscore.models.backends import without

with without(*([] if "transformers" in sys.modules else ["scipy"])):  # it may have looked for it already
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.models.opt.modeling_opt import OPTAttention
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

__all__ = ["AutoModelForCausalLM", "AutoTokenizer", "OPTAttention", "disable_progress_bar", "set_verbosity_error"]
