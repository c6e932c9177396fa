"""Computes the Pareto front: the rows that no cheaper row beats."""

from __future__ import annotations

from collections.abc import Sequence


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Returns the numbers of the (cost, quality) points on the front, cheapest first. No other point is better than such a point in one value
    without being worse in the other."""
    front: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[i][1] > points[front[-1]][1]:
            front.append(i)
    return front
