"""Numbers as the whole page writes them, and round numbers for axes."""

import math
from collections.abc import Sequence

NUM_TICKS = 5
MINUS = "−"
MANY_DECIMALS = 6
ROUNDING = 1e-6  # a range of this share of its values, or less, is none


def number(value: float | None, decimals: int = 1, signed: bool = False) -> str:
    """A number as the whole page writes it: a true minus sign, thousands with a comma; None: there is none."""
    if value is None:
        return "–"
    text = f"{abs(value):,.{decimals}f}"
    sign = "" if float(text.replace(",", "")) == 0 else MINUS if value < 0 else "+" if signed else ""
    return sign + text


def short(value: float) -> str:
    """Three significant digits, zeros at the end left out."""
    if value == 0:
        return "0"
    decimals = min(max(2 - math.floor(math.log10(abs(value))), 0), 6)
    text = number(value, decimals)
    return text.rstrip("0").rstrip(".") if "." in text else text


def counted(count: int, what: str) -> str:
    """1 sample, 1,000 samples."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def p_value(value: float) -> str:
    """A p-value with two significant digits."""
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def seconds(value: float) -> str:
    """A time with three significant digits, in the unit that fits."""
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms" if value >= 1e-4 else "< 0.1 ms"


def ticks(low: float, high: float) -> list[float]:
    """Round numbers that cover [low, high], about five of them."""
    if high - low <= ROUNDING * max(abs(low), abs(high)):
        margin = abs(low) * 0.1
        low, high = (low - margin, high + margin) if margin else (0.0, 1.0)
    rough = (high - low) / (NUM_TICKS - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    decimals = 2 - math.floor(math.log10(step))
    return [round(k * step, decimals) for k in range(first, last + 1)]


def labels(marks: Sequence[float]) -> list[str]:
    """Ticks as text, with as many decimals as tell them apart."""
    step = marks[1] - marks[0]
    decimals = max(0, -math.floor(math.log10(step)))
    if round(step, decimals) != round(step, decimals + 1):
        decimals += 1  # steps of 2.5
    return [number(mark, decimals) if decimals < MANY_DECIMALS else f"{mark:.3g}".replace("-", MINUS) for mark in marks]
