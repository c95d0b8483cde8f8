"""What a user may wish of `clean`, and the rules that follow for one store. Facts only: no pixels.

The order of the operations is fixed: decide (threshold, minimum or hysteresis), majority, erosion, dilation, opening,
closing, small objects removed, small holes filled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Integral, Real
from operator import index
from typing import Any, Literal, TypedDict

from models.errors import PlanError

from .rules import Connectivity, Operation, Rules, Shape
from .sizes import Size, SizeLike, parse_size

Removed = Literal["background", "surrounding"]
Thresholds = float | Mapping[str, float]

OPERATIONS: tuple[Operation, ...] = ("erosion", "dilation", "opening", "closing")  # in the order they are done
WIDEST = 256  # pixels, of a radius: wider ones would have each block read most of its neighbours


class CleanKeywords(TypedDict, total=False):
    """The keywords of `clean`; see `CleanOptions`."""

    threshold: Thresholds | None
    minimum: float | None
    hysteresis: Thresholds | None
    majority: int | None
    erosion: int | None
    dilation: int | None
    opening: int | None
    closing: int | None
    footprint: Shape
    min_object: SizeLike | None
    min_hole: SizeLike | None
    connectivity: Connectivity
    classes: Sequence[str] | None
    removed: Removed


@dataclass(frozen=True, slots=True)
class CleanOptions:
    """SegmentKeywords, checked as far as they can be without a store.

    Parameters
    ----------
    threshold
        A pixel takes the likeliest class but the first, where its probability is above this; else the first class. One
        for all, or by name for every class but the first. None: the map starts as the store has it, unless `minimum`
        is given.
    minimum
        A pixel takes the likeliest class of all; where its probability is below this, the first class.
    hysteresis
        A lower threshold: what is above it stays where it is connected, within one class, with a pixel above
        `threshold` (Canny 1986; `skimage.filters.apply_hysteresis_threshold`, but with `connectivity`).
    majority
        Side in pixels, odd, of the square whose most frequent class each pixel takes; of equals, the lowest value
        (`skimage.filters.rank.majority`).
    erosion, dilation, opening, closing
        Radius in pixels, done for each of `classes` in the order of their values. Lost pixels become background, and
        only background is gained.
    footprint
        `disk` or `square` (of side 2 radius + 1), as `skimage.morphology` has them.
    min_object
        Objects of `classes` that are smaller are removed; see `pipeline.postprocess.sizes.parse_size`.
    min_hole
        Smaller regions of background are filled with the class of their longest border, if it is one of `classes`.
    connectivity
        4: pixels touch at sides; 8: at corners too. For objects, holes and hysteresis alike.
    classes
        Names. None: all but the first, which is the background and never named.
    removed
        What small objects become: `background`, or the class of their longest border, `surrounding`.

    Raises
    ------
    PlanError
        A wish is out of range, or two contradict each other.
    """

    threshold: Thresholds | None = None
    minimum: float | None = None
    hysteresis: Thresholds | None = None
    majority: int | None = None
    erosion: int | None = None
    dilation: int | None = None
    opening: int | None = None
    closing: int | None = None
    footprint: Shape = "disk"
    min_object: SizeLike | None = None
    min_hole: SizeLike | None = None
    connectivity: Connectivity = 4
    classes: Sequence[str] | None = None
    removed: Removed = "background"

    def __post_init__(self) -> None:
        self._check_probabilities()
        for name in ("majority", *OPERATIONS):
            _check_pixels(name, getattr(self, name))
        if self.majority and self.majority % 2 == 0:
            raise PlanError(f"majority is the side of a square around a pixel, so it is odd; received {self.majority}")
        for name, known in (("footprint", ("disk", "square")), ("removed", ("background", "surrounding"))):
            if getattr(self, name) not in known:
                raise PlanError(f"{name} is {' or '.join(known)}; received {getattr(self, name)!r}")
        if self.connectivity not in (4, 8):
            raise PlanError(f"connectivity is 4 (sides) or 8 (sides and corners); received {self.connectivity!r}")
        if self.classes is not None and not self.class_list:
            raise PlanError("classes is empty; name at least one, or leave it out for all but the background")
        _size("min_object", self.min_object)
        _size("min_hole", self.min_hole)

    def _check_probabilities(self) -> None:
        for name in ("threshold", "minimum", "hysteresis"):
            _check_probability(name, getattr(self, name))
        if isinstance(self.minimum, Mapping):
            raise PlanError("minimum is one probability for all classes; for one per class use threshold")
        if self.minimum is not None and self.threshold is not None:
            raise PlanError("threshold and minimum are two ways to decide; give one of them")
        if self.hysteresis is not None and self.threshold is None:
            raise PlanError("hysteresis is the lower of two thresholds; give threshold, the higher one, too")

    @property
    def class_list(self) -> tuple[str, ...] | None:
        """The names in `classes`, also where one was given alone."""
        if isinstance(self.classes, str):
            return (self.classes,)
        return None if self.classes is None else tuple(self.classes)

    @property
    def object_size(self) -> Size | None:
        """`min_object`, read. None: nothing is removed."""
        return _size("min_object", self.min_object)

    @property
    def hole_size(self) -> Size | None:
        """`min_hole`, read. None: nothing is filled."""
        return _size("min_hole", self.min_hole)

    @property
    def needs_probability(self) -> bool:
        """Whether the map is decided anew."""
        return self.threshold is not None or self.minimum is not None

    @property
    def needs_areas(self) -> bool:
        """Whether a size is in square metres."""
        return any(size is not None and size.unit == "m2" for size in (self.object_size, self.hole_size))

    def as_facts(self) -> dict[str, Any]:
        """Give what was wished for as plain values, for a store's facts; what is as by default is left out."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        given["classes"] = list(self.class_list) if self.class_list else None
        given["min_object"], given["min_hole"] = (s and str(s) for s in (self.object_size, self.hole_size))
        given.update({name: given[name] or None for name in ("majority", *OPERATIONS)})
        defaults = {field.name: field.default for field in fields(self)}
        return {name: _plain(value) for name, value in given.items() if value != defaults[name]}

    def rules(self, class_names: Sequence[str], kept: Sequence[int] | None, *, has_areas: bool) -> Rules:
        """Settle the wishes for a store.

        Parameters
        ----------
        class_names
            In the order of their values; the first is the background.
        kept
            Class values of the layers of its probability. None or empty: it has none.
        has_areas
            Whether the area of its pixels is known, that is, whether it has a CRS.

        Raises
        ------
        PlanError
            An unknown class, probabilities that the store lacks, or square metres without a CRS.
        """
        if self.needs_areas and not has_areas:
            raise PlanError("the store has no CRS, so sizes in m² are unknown; give min_object and min_hole in pixels")
        if self.needs_probability:
            _check_kept(class_names, kept or (), all_of_them=self.minimum is not None)
        radii = [(name, int(getattr(self, name))) for name in OPERATIONS if getattr(self, name)]
        thresholds, low = (_by_value(n, getattr(self, n), class_names) for n in ("threshold", "hysteresis"))
        _check_order(low, thresholds, class_names)
        return Rules(
            num_classes=len(class_names),
            kept=tuple(kept or ()) if self.needs_probability else (),
            thresholds=thresholds,
            low=low,
            minimum=None if self.minimum is None else float(self.minimum),
            majority=None if self.majority in (None, 0, 1) else int(self.majority),
            operations=tuple(radii),
            footprint=self.footprint,
            classes=_values(self.class_list, class_names),
            min_object=self.object_size,
            min_hole=self.hole_size,
            connectivity=self.connectivity,
            surrounding=self.removed == "surrounding",
        )


def parse_thresholds(texts: Sequence[str]) -> Thresholds | None:
    """Read thresholds as the shell gives them: `0.7` for all classes, or `NAME=0.7` for one, repeated.

    Raises
    ------
    PlanError
        One is no number, a class comes twice, or both forms are given.
    """
    named = [text.rpartition("=") for text in texts]
    if len(named) == 1 and not named[0][1]:
        return _number(texts[0])
    if any(not name for name, _, _ in named) or len({name for name, _, _ in named}) < len(named):
        raise PlanError(f"give one threshold for all, or NAME=NUMBER once per class; received {', '.join(texts)}")
    return {name: _number(number) for name, _, number in named} or None


def _plain(value: Any) -> Any:
    """Give numbers, NumPy's too, as JSON knows them."""
    if isinstance(value, Mapping):
        return {name: float(number) for name, number in value.items()}
    return int(value) if isinstance(value, Integral) else float(value) if isinstance(value, Real) else value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise PlanError(f"a threshold is a number from 0 to 1; received {text!r}") from None


def _check_probability(name: str, wish: Thresholds | None) -> None:
    wished: list[Any] = list(wish.values()) if isinstance(wish, Mapping) else [] if wish is None else [wish]
    for value in wished:
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) <= 1:
            raise PlanError(f"{name} is a probability from 0 to 1; received {value!r}")


def _check_pixels(name: str, wish: int | None) -> None:
    """Refuse what is not a whole number of pixels, or makes each block read most of its neighbours."""
    widest = 2 * WIDEST + 1 if name == "majority" else WIDEST
    try:
        pixels = 0 if wish is None else index(wish)
    except TypeError:
        pixels = -1
    if isinstance(wish, bool) or not 0 <= pixels <= widest:
        raise PlanError(f"{name} is a whole number of pixels from 0 to {widest}; received {wish!r}")


def _size(name: str, wish: SizeLike | None) -> Size | None:
    try:
        size = None if wish is None else parse_size(wish)
    except PlanError as error:
        raise PlanError(f"{name}: {error}") from None
    return size if size and size.value else None


def _by_value(name: str, wish: Thresholds | None, class_names: Sequence[str]) -> tuple[float, ...] | None:
    """Give thresholds by class value. The background has none, and a class left out would have to be guessed."""
    if wish is None or not isinstance(wish, Mapping):
        return None if wish is None else tuple(float(wish) for _ in class_names)
    _values(tuple(wish), class_names)
    missing = [given for given in class_names[1:] if given not in wish]
    if missing:
        raise PlanError(f"{name} needs a number for every class but the first; missing: {', '.join(missing)}")
    return (0.0, *(float(wish[given]) for given in class_names[1:]))


def _check_order(low: tuple[float, ...] | None, high: tuple[float, ...] | None, class_names: Sequence[str]) -> None:
    for name, lower, higher in list(zip(class_names, low or (), high or (), strict=False))[1:]:
        if lower > higher:
            raise PlanError(
                f"hysteresis is the lower of two thresholds, but {lower:g} is above threshold, {higher:g}, for {name!r}"
            )


def _values(wished: Sequence[str] | None, class_names: Sequence[str]) -> tuple[int, ...]:
    if wished is None:
        return tuple(range(1, len(class_names)))
    for name in wished:
        if name not in class_names:
            raise PlanError(f"the store has no class {name!r}; it has: {', '.join(class_names)}")
        if name == class_names[0]:
            raise PlanError(f"{name!r} is the background, which has no objects; its small regions are for min_hole")
    return tuple(sorted({class_names.index(name) for name in wished}))


def _check_kept(class_names: Sequence[str], kept: Sequence[int], *, all_of_them: bool) -> None:
    """Refuse to decide without the probabilities of all classes; of two, the second says all."""
    needed = set(range(len(class_names)) if all_of_them and len(class_names) > 2 else range(1, len(class_names)))
    if not kept:
        raise PlanError(
            "the store has no probabilities, which threshold, minimum and hysteresis need; write it with "
            "`swathe segment SCENE -m BUNDLE -o OUT.zarr --probability uint8`"
        )
    if missing := sorted(needed - set(kept)):
        raise PlanError(
            f"the store lacks the probabilities of: {', '.join(class_names[value] for value in missing)}; write it "
            "with `swathe segment SCENE -m BUNDLE -o OUT.zarr --probability-of all`"
        )
