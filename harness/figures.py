"""Numbers as people read them: on the progress line, on the pages of reports."""


def figures(value: float) -> str:
    """Four significant ones, or all digits before the point: 0.01234, 12.34, 1,234, 123,456."""
    return f"{value:,.0f}" if abs(value) >= 999.95 else f"{value:.4g}"
