"""Texts for the terminal about bundles: those that are there, those to be had, and the card of one."""

from typing import Any

from models.bundle import SHIPPED, Bundle, load_bundle, shipped_bundles
from models.encoding import describe_decision
from models.known import KNOWN, own_bundles
from models.metadata import BundleMetadata
from models.system import bundles_folder

from ..inference.options import SegmentOptions
from ..inference.radiometry import span
from ..io.radiometry import describe_bands

LICENCES = ("licence", "license")  # what provenance calls it


def list_bundles() -> str:
    """List bundles with their licences: shipped, in the user's own folder, and published ones that import."""
    own, unusable = own_bundles()
    lines = [line for bundle in shipped_bundles() for line in _of_bundle(bundle)]
    lines += ["", f"yours, in {bundles_folder()}:{'' if own or unusable else ' none'}"]
    lines += [line for bundle in own for line in _of_bundle(bundle)]
    lines += [f"{'':14} not usable: {said}" for said in unusable]
    lines += ["", "published by others, not part of Swathe; known to import:"]
    for known in KNOWN:
        lines += [f"{known.name:14} {known.finds}; {known.licence}", f"{'':14} {known.source}: {known.command}"]
    return "\n".join(lines)


def _of_bundle(bundle: Bundle) -> list[str]:
    metadata = bundle.metadata
    parts = [
        ", ".join(metadata.class_names),
        f"bands {', '.join(metadata.band_names)} ({metadata.dtype})",
        _scale(metadata),
        f"{bundle.parameters:,} parameters",
        _licence(bundle),
    ]
    lines = [f"{metadata.name:14} {'; '.join(parts)}"]
    return [*lines, f"{'':14} {metadata.description}"] if metadata.description else lines


def _licence(bundle: Bundle) -> str:
    """Return the licence of a bundle as its provenance states it; the shipped ones have that of Swathe."""
    if SHIPPED in bundle.path.parents:
        return "Apache-2.0"
    said = [line.partition(": ")[2] for line in _flat(dict(bundle.metadata.provenance))
            if line.partition(": ")[0].rpartition(".")[2].lower() in LICENCES]  # fmt: skip
    return ", ".join(dict.fromkeys(said)) or "licence not stated"


def describe_bundle(name: str) -> str:
    """Describe all that is known of a bundle."""
    bundle = load_bundle(name)
    metadata, field = bundle.metadata, bundle.metadata.receptive_field
    thresholds = SegmentOptions().decision(metadata)
    halo = "none, every output sees the whole input" if field.halo is None else f"{field.halo} pixels"
    lines = [
        f"bundle      {metadata.name}  {bundle.path}",
        *([f"about       {metadata.description}"] if metadata.description else []),
        f"licence     {_licence(bundle)}",
        f"digest      {bundle.digest}",
        f"network     {metadata.architecture} {dict(metadata.options) or ''}  {bundle.parameters:,} parameters",
        f"bands       {', '.join(metadata.band_names)}; {metadata.dtype}; scaled by {metadata.scaling.kind}",
        *_values(metadata),
        f"classes     {', '.join(f'{value} {info.name} #{info.color}' for value, info in enumerate(metadata.classes))}",
        f"background  {metadata.background or 'none: all classes are of equal standing'}",
        f"decision    {describe_decision(thresholds, metadata.class_names)}",
        f"resolution  {_scale(metadata)}",
        f"halo        exact: {halo}; stride {field.stride}, receptive radius {field.radius}",
    ]
    if bundle.int8 is not None:
        lines.append(f"int8        carried, graph {bundle.int8.digest[:12]}; errors and speed against fp32, by scene:")
    measured = {name: dict(values) for name, values in bundle.int8_scores.items()}
    for title, values in (("int8", measured), ("metrics", metadata.metrics), ("provenance", metadata.provenance)):
        lines += [f"{title:11} {line}" for line in _flat(values)]
    return "\n".join(lines)


def _values(metadata: BundleMetadata) -> list[str]:
    """Say what the values of a bundle's bands mean, and which they were in training."""
    means = describe_bands(metadata.band_names, tuple(band.radiometry for band in metadata.bands))
    spans = [f"{band.name} {span(band.quantiles)}" for band in metadata.bands if band.quantiles]
    return [f"values      {means}", *([f"            1 to 99 % in training: {', '.join(spans)}"] if spans else [])]


def _scale(metadata: BundleMetadata) -> str:
    if metadata.resolution is None:
        return "resolution unknown"
    finest, coarsest = metadata.resolution
    return f"{finest:g} m" if finest == coarsest else f"{finest:g} to {coarsest:g} m"


def _flat(values: Any, prefix: str = "") -> list[str]:
    """Format nested values as lines of dotted names."""
    if isinstance(values, dict):
        return [
            line for key, value in values.items() for line in _flat(value, f"{prefix}.{key}" if prefix else str(key))
        ]
    text = ", ".join(map(str, values)) if isinstance(values, list) else str(values)
    return [f"{prefix}: {text}"]
