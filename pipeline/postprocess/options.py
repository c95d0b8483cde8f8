"""Options of `clean`: checked, resolved for the classes of one store; sizes and thresholds read. No pixels.

The order of the operations is fixed: threshold, minimum or hysteresis; majority; erosion, dilation, opening, closing;
small objects removed; small holes filled.
"""

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, fields
from math import isfinite
from numbers import Integral, Real
from operator import index
from typing import Any, Literal

from models.encoding import Decision, Thresholds, check_probability, decision
from models.errors import BundleError, PlanError
from models.metadata import named_background

from ..objects.label import Connectivity, check_connectivity

Element = Literal["disk", "square"]
Operation = Literal["erosion", "dilation", "opening", "closing"]
Removed = Literal["background", "surrounding"]

OPERATIONS: tuple[Operation, ...] = ("erosion", "dilation", "opening", "closing")  # in the order they are done
WIDEST = 256  # pixels, of a radius: wider ones would have each block read most of its neighbours
SQUARE_METRES = {"m2": 1.0, "m²": 1.0, "ha": 1e4, "km2": 1e6, "km²": 1e6}
ALLOWED = "pixels as 200 or '200 px', or an area as '20 m2', '1.5 ha' or '2 km2'"


@dataclass(frozen=True, slots=True)
class Size:
    """The size below which something is small.

    Parameters
    ----------
    value
        Not negative, finite.
    unit
        `px`: pixels; `m2`: square metres on the ellipsoid.
    """

    value: float
    unit: Literal["px", "m2"] = "px"

    def __post_init__(self) -> None:
        if not isfinite(self.value) or self.value < 0:
            raise PlanError(f"a size must not be negative and must be finite; received {self.value}. Give {ALLOWED}")

    def __str__(self) -> str:
        return f"{self.value:.15g} {'px' if self.unit == 'px' else 'm²'}"


SizeLike = str | float | Size


def parse_size(given: SizeLike) -> Size:
    """Read a size.

    Parameters
    ----------
    given
        A number, bare or with `px`: pixels. With `m2`, `m²`, `ha`, `km2` or `km²`: an area. Case and spaces are free.

    Returns
    -------
    Size
        In pixels or square metres.

    Raises
    ------
    PlanError
        It is empty, has no number or another unit, or is negative or not finite.
    """
    if isinstance(given, Size):
        return given
    text = str(given).strip()
    found = re.fullmatch(r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|nan|[+-]?inf)\s*(?P<unit>.*)", text, re.I)
    if isinstance(given, bool) or not found:
        raise PlanError(f"a size is a number with a unit; received {given!r}. Give {ALLOWED}")
    value, unit = float(found["number"]), found["unit"].lower()
    if unit in ("", "px"):
        return Size(value)
    if unit not in SQUARE_METRES:
        raise PlanError(f"a size has no unit {found['unit']!r}; received {given!r}. Give {ALLOWED}")
    return Size(value * SQUARE_METRES[unit], "m2")


@dataclass(frozen=True, slots=True)
class CleanOptions:
    """What `clean` does, checked as far as it can be without a store: the keywords of `clean` and `write_clean`.

    Only pixels of `classes` and of the background take part: the others stay as they are whatever is asked for. They
    have no vote in the majority, and nothing grows into them. The background is what pixels become that no class of
    `classes` may keep; without one only `majority`, `min_object` and `removed="surrounding"` can be asked for.

    Parameters
    ----------
    threshold
        A pixel takes the likeliest of `classes`, where its probability is above this; else it is background. One for
        all, or by name for each of `classes`. None: the map starts as the store has it, unless `minimum` is given.
    minimum
        A pixel takes the likeliest of `classes` and the background; where its probability is below this, it is
        background.
    hysteresis
        A lower threshold: what is above it stays where it is connected, within one class, with a pixel above
        `threshold` (Canny 1986; `skimage.filters.apply_hysteresis_threshold`, but with `connectivity`).
    majority
        Side in pixels, odd, of the square whose most frequent class each pixel takes; of equals, the lowest value
        (`skimage.filters.rank.majority`). Only `classes` and the background count.
    erosion, dilation, opening, closing
        Radius in pixels, done for each of `classes` in the order of their values. Lost pixels become background, and
        only background is gained.
    element
        The structuring element of these four: `disk` or `square` (of side 2 radius + 1), as `skimage.morphology` has
        them.
    min_object
        Objects of `classes` that are smaller are removed: a number of pixels, or an area as "20 m2" or "1.5 ha".
    min_hole
        Smaller regions of background are filled with the class of their longest border, if it is one of `classes`.
    connectivity
        4: pixels touch at sides; 8: at corners too. For objects, holes and hysteresis alike.
    classes
        Names, of which the background is none. None: all others.
    removed
        What small objects become: `background`, or the class of their longest border, `surrounding`; they stay where
        nothing borders on them. None: `background`, if there is one.
    background
        The class that is the background, for this cleaning and in what is written. `none`, if no class is called so, or
        False: there is none. None: as the maps have it.

    Raises
    ------
    PlanError
        An option is out of range, or two contradict each other.
    """

    threshold: Thresholds | None = None
    minimum: float | None = None
    hysteresis: Thresholds | None = None
    majority: int | None = None
    erosion: int | None = None
    dilation: int | None = None
    opening: int | None = None
    closing: int | None = None
    element: Element = "disk"
    min_object: SizeLike | None = None
    min_hole: SizeLike | None = None
    connectivity: Connectivity = 4
    classes: Sequence[str] | None = None
    removed: Removed | None = None
    background: str | Literal[False] | None = None

    def __post_init__(self) -> None:
        for name in ("threshold", "minimum", "hysteresis"):
            check_probability(name, getattr(self, name))
        if isinstance(self.minimum, Mapping):
            raise PlanError("minimum is one probability for all classes; for one per class use threshold")
        if self.minimum is not None and self.threshold is not None:
            raise PlanError("threshold and minimum are two ways to decide; give one of them")
        if self.hysteresis is not None and self.threshold is None:
            raise PlanError("hysteresis is the lower of two thresholds; give threshold, the higher one, too")
        for name in ("majority", *OPERATIONS):
            _check_pixels(name, getattr(self, name))
        if self.majority and self.majority % 2 == 0:
            raise PlanError(f"majority is the side of a square around a pixel, so it is odd; received {self.majority}")
        for name, known in (("element", ("disk", "square")), ("removed", ("background", "surrounding"))):
            if getattr(self, name) not in (*known, *([None] if name == "removed" else [])):
                raise PlanError(f"{name} is {' or '.join(known)}; received {getattr(self, name)!r}")
        check_connectivity(self.connectivity)
        if self.classes is not None and not self.class_list:
            raise PlanError("classes is empty; name at least one, or leave it out for all but the background")
        _ = self.object_size, self.hole_size  # refused if they cannot be read

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
    def radii(self) -> tuple[tuple[Operation, int], ...]:
        """The morphological operations in their order, each with its radius in pixels."""
        return tuple((name, int(getattr(self, name))) for name in OPERATIONS if getattr(self, name))

    @property
    def needs_probability(self) -> bool:
        """Whether the map is made anew from probabilities."""
        return self.threshold is not None or self.minimum is not None

    @property
    def needs_areas(self) -> bool:
        """Whether a size is in square metres."""
        return any(size is not None and size.unit == "m2" for size in (self.object_size, self.hole_size))

    def as_json(self) -> dict[str, Any]:
        """Return what differs from the defaults as JSON values, for a store's metadata."""
        given = {field.name: getattr(self, field.name) for field in fields(CleanOptions)}
        given["classes"] = list(self.class_list) if self.class_list else None
        given["min_object"], given["min_hole"] = (s and str(s) for s in (self.object_size, self.hole_size))
        given.update({name: given[name] or None for name in ("majority", *OPERATIONS)})
        given["removed"] = "surrounding" if self.removed == "surrounding" else None  # the other is what is usual
        return {f.name: _plain(given[f.name]) for f in fields(CleanOptions) if given[f.name] != f.default}

    def resolve(
        self, class_names: Sequence[str], kept: Sequence[int] | None, *, background: int | None, has_areas: bool
    ) -> "ResolvedOptions":
        """Return the options for one store's classes, by value instead of by name.

        Parameters
        ----------
        class_names
            In the order of their values.
        kept
            Class values of the bands of its probability. None or empty: it has none.
        background
            Value of the store's own background. None: it has none.
        has_areas
            Whether the area of its pixels is known, that is, whether it has a CRS.

        Raises
        ------
        PlanError
            An unknown class, probabilities that the store lacks, square metres without a CRS, what needs a background
            where there is none.
        """
        names, background = list(class_names), self._background(class_names, background)
        values = _values(self.class_list, names, background)
        if background is None:
            self._refuse_without_background(names)
        if self.needs_areas and not has_areas:
            raise PlanError("the store has no CRS, so sizes in m² are unknown; give min_object and min_hole in pixels")
        if self.needs_probability:
            _check_kept(names, kept or (), {*values, *([background] if self.minimum is not None else [])})
        thresholds = _by_value("threshold", self.threshold, names, background, values)
        low = _by_value("hysteresis", self.hysteresis, names, background, values)
        for name, lower, higher in zip(names, low or (), thresholds or (), strict=False):
            if lower is not None and higher is not None and lower > higher:
                raise PlanError(f"hysteresis is the lower of two thresholds, but {lower:g} is above threshold, "
                                f"{higher:g}, for {name!r}")  # fmt: skip
        given = {field.name: getattr(self, field.name) for field in fields(CleanOptions)}
        given["removed"] = self.removed or ("surrounding" if background is None else "background")
        return ResolvedOptions(
            **given,
            num_classes=len(names),
            kept=tuple(kept or ()) if self.needs_probability else (),
            thresholds=thresholds,
            low=low,
            values=values,
            background_value=background,
        )

    def _background(self, class_names: Sequence[str], own: int | None) -> int | None:
        """Return the value of the background: the one asked for, else the store's own."""
        if self.background is None:
            return own
        try:
            name = named_background(self.background, class_names)
        except BundleError as error:
            raise PlanError(str(error)) from None
        return None if name is None else class_names.index(name)

    def _refuse_without_background(self, class_names: Sequence[str]) -> None:
        """Refuse what turns pixels into background, or background into a class, where there is none."""
        asked = [name for name in ("threshold", "minimum", "hysteresis") if getattr(self, name) is not None]
        asked += [name for name, _ in self.radii]
        asked += ["min_hole"] if self.hole_size else []
        asked += ["removed='background'"] if self.removed == "background" else []
        if asked:
            raise PlanError(
                f"{', '.join(asked)}: pixels become background, or grow into it, and these maps have none. Say which "
                f"class it is with --background NAME (in Python background=), of {', '.join(class_names)}; or leave "
                f"{'it' if len(asked) == 1 else 'them'} out"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedOptions(CleanOptions):
    """Options for the classes of one store. Small enough to send with each task.

    Parameters
    ----------
    num_classes
        Classes of the store; their values are 0 to one less.
    kept
        Class values of the probability's bands, in their order; empty where none are read.
    thresholds, low
        `threshold` and `hysteresis` by class value; None for the background and for what is not among `values`. None:
        not asked for.
    values
        Values of the `classes`, ascending; never that of the background.
    background_value
        Value of the background. None: there is none.
    """

    num_classes: int
    kept: tuple[int, ...]
    thresholds: Decision | None
    low: Decision | None
    values: tuple[int, ...]
    background_value: int | None

    @property
    def taking_part(self) -> tuple[int, ...]:
        """Values of the classes whose pixels may change, ascending: those asked for and the background."""
        background = () if self.background_value is None else (self.background_value,)
        return tuple(sorted({*self.values, *background}))


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


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise PlanError(f"a threshold is a number from 0 to 1; received {text!r}") from None


def _plain(value: Any) -> Any:
    """Return numbers, NumPy's too, as JSON knows them."""
    if isinstance(value, bool):
        return value
    if isinstance(value, Mapping):
        return {name: float(number) for name, number in value.items()}
    return int(value) if isinstance(value, Integral) else float(value) if isinstance(value, Real) else value


def _check_pixels(name: str, given: int | None) -> None:
    """Refuse what is not a whole number of pixels, or makes each block read most of its neighbours."""
    widest = 2 * WIDEST + 1 if name == "majority" else WIDEST
    try:
        pixels = 0 if given is None else index(given)
    except TypeError:
        pixels = -1
    if isinstance(given, bool) or not 0 <= pixels <= widest:
        raise PlanError(f"{name} is a whole number of pixels from 0 to {widest}; received {given!r}")


def _size(name: str, given: SizeLike | None) -> Size | None:
    try:
        size = None if given is None else parse_size(given)
    except PlanError as error:
        raise PlanError(f"{name}: {error}") from None
    return size if size and size.value else None


def _by_value(
    name: str, given: Thresholds | None, class_names: Sequence[str], background: int | None, values: Sequence[int]
) -> Decision | None:
    """Return thresholds by class value, one for each of `values`: one left out would have to be guessed."""
    if given is None or background is None:
        return None
    if isinstance(given, Mapping):
        _values(tuple(given), class_names, background)
    taken = [*values, background]
    try:
        by_class = dict(zip(taken, decision(given, [class_names[value] for value in taken], len(values)), strict=True))
    except PlanError as error:
        raise PlanError(f"{name}: {error}") from None
    return tuple(by_class.get(value) for value in range(len(class_names)))


def _values(names: Sequence[str] | None, class_names: Sequence[str], background: int | None) -> tuple[int, ...]:
    if names is None:
        return tuple(value for value in range(len(class_names)) if value != background)
    for name in names:
        if name not in class_names:
            raise PlanError(f"the store has no class {name!r}; it has: {', '.join(class_names)}")
        if background is not None and name == class_names[background]:
            raise PlanError(f"{name!r} is the background, which has no objects; its small regions are for min_hole")
    return tuple(sorted({class_names.index(name) for name in names}))


def _check_kept(class_names: Sequence[str], kept: Sequence[int], needed: Set[int | None]) -> None:
    """Refuse to decide without the probabilities of some classes; of two, either says all."""
    if not kept:
        raise PlanError(
            "the store has no probabilities, which threshold, minimum and hysteresis need; write it with "
            "`swathe segment SCENE -m BUNDLE -o OUT.zarr --probability uint8`"
        )
    missing = [class_names[value] for value in sorted(value for value in needed if value is not None)
               if value not in kept and len(class_names) > 2]  # fmt: skip
    if missing:
        raise PlanError(
            f"the store lacks the probabilities of: {', '.join(missing)}; write it "
            "with `swathe segment SCENE -m BUNDLE -o OUT.zarr --probability-of all`"
        )
