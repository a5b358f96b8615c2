"""What a record holds, beside what the launcher adds: numbers of six digits, texts, and lists of them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

OTHER_KEYS = {"adapted", "moved", "repeated_steps", "seconds", "seconds_stages", "seconds_waiting", "error"}


def rounded(value: Any) -> Any:
    """Six digits of a number, a tensor, or lists of these; whole numbers and texts stay; TypeError: anything else."""
    if isinstance(value, list) and value and all(isinstance(item, Tensor) for item in value):
        value = torch.stack(value)
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return value if isinstance(value, int | str) else float(f"{value:.6g}")


def with_extra(row: dict[str, Any], method: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    """A record with what its method adds to it; ValueError: it cannot hold that, or has another value of that name."""
    for key, value in extra.items():
        if key in row or key in OTHER_KEYS:
            raise ValueError(f"method={method} gives extra[{key!r}], but every record has {key}; choose another name")
        try:
            row[key] = rounded(value)
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(
                f"method={method} gives extra[{key!r}] = {value!r:.80}; a tensor, number, text or list of them expected"
            ) from None
    return row
