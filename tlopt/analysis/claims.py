"""Claims of papers about curves, and whether they are seen on a study's images."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from tlopt.analysis.curves import EPOCH, STUDY, Curve, Curves, value_name
from tlopt.analysis.shape import ERROR, Shape, possible_best

Seen = Literal["seen", "the reverse is seen", "cannot be told"]


@dataclass(frozen=True, kw_only=True)
class PaperClaim:
    """One claim and the answer that one curve, or several, give to it."""

    source: str
    text: str
    seen: Seen
    of: str  # name of the curve; "" for the only one

    @property
    def words(self) -> str:
        """The claim in one line."""
        where = f" ({self.of})" if self.of else ""
        return f"{self.source}: {self.text}{where}: {self.seen}."


def claims_of(found: Curves) -> Iterator[PaperClaim]:
    """The claims about curves over this key, curve by curve, then between curves."""
    if found.has_recipes:
        return
    for curve in found.curves:
        yield from _of_curve(found.over, curve)
    if found.over in ("freeze_depth", "transfer_depth"):
        yield from _moving_optimum(found)
        yield from _optimum_by_study(found)


def _of_curve(over: str, curve: Curve) -> Iterator[PaperClaim]:
    shape, n = curve.shape, len(curve.places)
    if n < 2:
        return
    if over == "freeze_depth":
        yield PaperClaim(
            source="Gerace et al. 2023",
            text=f"freezing the most blocks, {curve.places[-1]}, is worse than freezing fewer",
            seen=_excludes_last(shape, n),
            of=curve.name,
        )
    if over == "freeze_depth" and n > 2:  # of two depths, none lies between none and all
        yield PaperClaim(
            source="Gerace et al. 2023",
            text="it is best to freeze some blocks and not all",
            seen=_is_inside(shape),
            of=curve.name,
        )
        yield PaperClaim(
            source="Dar et al. 2022",
            text="double descent over the number of frozen blocks",
            seen="seen" if shape.dip else "cannot be told",
            of=curve.name,
        )
    if over == "transfer_depth":
        yield PaperClaim(
            source="Plested et al. 2021",
            text=f"keeping the most blocks, {curve.places[-1]}, is worse than keeping fewer",
            seen=_excludes_last(shape, n),
            of=curve.name,
        )
    if over == EPOCH:
        yield PaperClaim(
            source="Dar et al. 2022",
            text="double descent over epochs",
            seen="seen" if shape.dip else "cannot be told",
            of=curve.name,
        )


def _excludes_last(shape: Shape, n: int) -> Seen:
    if shape.possible == (n - 1,):
        return "the reverse is seen"
    return "cannot be told" if n - 1 in shape.possible or shape.place == "unknown" else "seen"


def _is_inside(shape: Shape) -> Seen:
    if shape.place == "inside":
        return "seen"
    return "the reverse is seen" if shape.place in ("first", "last") else "cannot be told"


def _moving_optimum(found: Curves) -> Iterator[PaperClaim]:
    """Between the fewest and the most training images, with all other keys equal."""
    for name, curves in _grouped(found, "train_images").items():
        by_images = sorted(curves, key=lambda curve: float(curve.keys["train_images"]))
        fewest, most = (
            {curve.places[i] for i in curve.shape.possible} for curve in by_images[:: len(curves) - 1]
        )
        images = [value_name("train_images", curve.keys["train_images"]) for curve in by_images]
        yield PaperClaim(
            source="Gerace et al. 2023",
            text=f"the best depth moves between {images[0]} and {images[-1]}",
            seen="cannot be told" if fewest & most else "seen",
            of=name,
        )


def _optimum_by_study(found: Curves) -> Iterator[PaperClaim]:
    """Between any two studies, which share the error, with all other keys equal."""
    for name, curves in _grouped(found, STUDY).items():
        sign = 1 if found.study.direction == "maximize" else -1
        possible = {
            str(curve.keys[STUDY]): {
                curve.places[i]
                for i in possible_best(sign * curve.values, step=found.step, error=ERROR / len(curves))
            }
            for curve in curves
        }
        apart = [pair for pair in combinations(possible, 2) if not possible[pair[0]] & possible[pair[1]]]
        between = f"{apart[0][0]} and {apart[0][1]}" if apart else "studies"
        yield PaperClaim(
            source="Gerace et al. 2023",
            text=f"the best depth differs between {between}",
            seen="seen" if apart else "cannot be told",
            of=name,
        )


def _grouped(found: Curves, key: str) -> dict[str, list[Curve]]:
    """The curves that differ in `key` alone, two at least, by the other keys in words."""
    groups: dict[str, list[Curve]] = {}
    for curve in found.curves:
        others = [value_name(name, value) for name, value in curve.keys.items() if name != key]
        if key in curve.keys:
            groups.setdefault(", ".join(others), []).append(curve)
    return {name: curves for name, curves in groups.items() if len(curves) > 1}
