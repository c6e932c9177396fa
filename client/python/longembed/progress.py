"""Progress bars. They need the extra "progress"."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class NoBar:
    def update(self, count: int) -> None:
        pass

    def close(self) -> None:
        pass


def bar(wanted: bool, items: Iterable[Any], unit: str = "text") -> Any:
    """Returns a tqdm bar, whose total is the length of `items` if it has one. Unless `wanted`, returns an object that shows nothing."""
    if not wanted:
        return NoBar()
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError('progress bars need tqdm: pip install "longembed[progress]"') from error
    return tqdm(total=len(items) if hasattr(items, "__len__") else None, unit=unit, smoothing=0.05)
