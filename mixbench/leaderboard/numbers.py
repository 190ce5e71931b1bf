"""Format means, differences and p-values with as many digits as they are known to."""

import math

MOST_DIGITS = 6


def plus_minus(mean: float, std: float) -> str:
    """Format a mean and its standard deviation, which is NaN and omitted for a single run."""
    if math.isnan(std):
        return f"{mean:.2f}"
    digits = 2 if std >= 0.005 or not std else _digits(std)  # else it would be shown as 0.00
    return f"{mean:.{digits}f} ± {std:.{digits}f}"


def difference_text(mean: float | None, low: float | None, high: float | None) -> str:
    """Format a difference and its confidence interval, with two digits of half its width."""
    if mean is None or math.isnan(mean):
        return ""
    if low is None or high is None or math.isnan(low):
        return _signed(mean, 2)
    digits = _digits((high - low) / 2)
    return f"{_signed(mean, digits)} [{_signed(low, digits)}, {_signed(high, digits)}]"


def p_text(p: float | None) -> str:
    """Format a p-value; values near 0.05 are told apart."""
    if p is None or math.isnan(p):
        return ""
    if p < 0.001:
        return "<.001"
    return f"{p:.{4 if p < 0.1 else 3}f}".removeprefix("0")


def _digits(size: float) -> int:
    """Return the number of decimals that shows a size with two significant digits."""
    if not (math.isfinite(size) and size > 0):
        return 2
    return min(max(1 - math.floor(math.log10(size)), 0), MOST_DIGITS)


def _signed(value: float, digits: int) -> str:
    """Format a number with its sign; a number that is rounded to 0 has the sign +."""
    text = f"{value:+.{digits}f}"
    return text.replace("-", "+") if float(text) == 0 else text
