"""Zarr groups and NetCDF files as scenes, read by xarray: one array of all bands, or one variable per band."""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import fsspec
import xarray as xr

from models.errors import SceneError
from models.limits import check_chunk, check_extent, refuse_special

from .allowed import check, check_zarr
from .array import ArraySource, dataset_source
from .content_id import fsspec_options
from .gdal import absolute_name, is_remote, natural_order, printable

REWRITE = "Write it anew in smaller chunks, as with xarray's `chunk({'y': 1024, 'x': 1024}).to_zarr`"
ZARR_FILES = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")
NETCDF = (".nc", ".nc4", ".cdf", ".netcdf")


def is_zarr(path: str) -> bool:
    """Whether a path or URL is a Zarr group's, by its ending or by what lies in the folder."""
    place = path.partition("?")[0].rstrip("/")
    return place.endswith(".zarr") or any(os.path.isfile(os.path.join(path, name)) for name in ZARR_FILES)


def zarr_source(path: str) -> ArraySource:
    """Open a Zarr group, of version 2 or 3; see `dataset_source`.

    Its variables are taken in the order of their names, since a group has none of its own.

    Raises
    ------
    SceneError
        There is none, or it holds no such arrays.
    """
    path = absolute_name(path)
    for name in ZARR_FILES:
        refuse_special(f"{path}/{name}", SceneError)
    check_zarr(path)
    dataset = _open_zarr(path)
    try:
        dataset, notes = _without_fill_values(dataset, path)
    except Exception as error:  # of zarr and of whatever its metadata are, which xarray read consolidated
        raise SceneError(f"{path} cannot be opened as Zarr: {printable(str(error))[:200]}") from error
    source = dataset_source(dataset[sorted(dataset.data_vars, key=natural_order)], path)
    return replace(source, paths=(path,), notes=(*source.notes, *notes))


def _open_zarr(path: str) -> xr.Dataset:
    """Open it by its consolidated metadata, which web servers need, else without."""
    for consolidated in (True, False):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of types of names that Zarr has not agreed on
                options = fsspec_options(path) or None
                store = xr.backends.ZarrStore.open_group(path, consolidated=consolidated, storage_options=options)
                variables = store.get_variables()
                _refuse_large(path, variables)  # before xarray loads coordinates
                return xr.open_dataset(store, mask_and_scale=False, decode_coords="all")
        except SceneError:
            raise
        except Exception as error:  # of zarr, fsspec and each kind of server
            reason = printable(str(error))[:200] or type(error).__name__
    raise SceneError(f"{path} cannot be opened as Zarr: {reason}")


def _refuse_large(path: str, variables: Mapping[Any, xr.Variable]) -> None:
    """Refuse what takes more memory than there is before anything is read: chunks, and coordinates."""
    for name, variable in variables.items():
        chunk = variable.encoding.get("chunks") or variable.encoding.get("chunksizes")
        piece, what = (
            variable.shape if variable.ndim < 2 or not chunk else chunk,
            f"{path}: {printable(str(name))[:60]}",
        )
        check_chunk(what, piece, variable.dtype.itemsize, SceneError, REWRITE)
        if variable.ndim > 1:
            check_extent(what, 1, sorted(variable.shape)[-2:], SceneError)


def _without_fill_values(dataset: xr.Dataset, path: str) -> tuple[xr.Dataset, tuple[str, ...]]:
    """Take back what xarray takes for `_FillValue` although it is only what Zarr 2 gives for chunks that are not there.

    xarray itself writes `_FillValue` nowhere else than in Zarr 2's fill_value, and null without one; in a group that it
    wrote, as null or NaN among the fill values shows, it counts. zarr writes 0 there by default.
    """
    rasters = {str(name): array for name, array in dataset.data_vars.items() if array.ndim > 1}
    suspects = [name for name, array in rasters.items() if "_FillValue" in array.attrs]
    if not suspects:
        return dataset, ()
    said = _fill_values(path, [str(name) for name in dataset.variables])
    if any(fill is None or fill != fill for _, fill in said.values()):  # NaN is not itself
        return dataset, ()
    dropped = [name for name in suspects if said.get(name, (True, None))[0] is False]
    for name in dropped:
        del dataset[name].attrs["_FillValue"]
    if not dropped:
        return dataset, ()
    note = f"the fill_value of {', '.join(dropped)} is not taken for nodata: the attribute _FillValue would say so"
    return dataset, (note,)


def _fill_values(path: str, names: Sequence[str]) -> dict[str, tuple[bool, Any]]:
    """Return of arrays of a Zarr 2 group whether their own attributes name `_FillValue`, and their fill_value.

    Arrays are asked for by their names, since web servers list nothing.
    """
    import zarr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        group = zarr.open_group(path, mode="r", storage_options=fsspec_options(path) or None)
        if group.metadata.zarr_format != 2:
            return {}
        arrays: dict[str, Any] = {name: group.get(name) for name in names}
        return {
            name: ("_FillValue" in array.attrs, array.metadata.fill_value)
            for name, array in arrays.items()
            if array is not None
        }


def is_netcdf(path: str) -> bool:
    """Whether a path is a NetCDF file's that xarray can read with what is installed; GDAL reads others too."""
    if not path.partition("?")[0].lower().endswith(NETCDF) or is_remote(path):
        return False
    try:
        with fsspec.open(absolute_name(path), "rb") as file:
            classic = file.read(3) == b"CDF"
    except OSError:
        return False
    return classic or bool({"netcdf4", "h5netcdf"} & set(xr.backends.list_engines()))


def netcdf_source(path: str) -> ArraySource:
    """Open a NetCDF file; see `dataset_source`.

    Raises
    ------
    SceneError
        It cannot be read, or holds no such variables.
    """
    path = absolute_name(path)
    check(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = xr.open_dataset(path, mask_and_scale=False, decode_coords="all", cache=False)
            _refuse_large(path, {name: of for name, of in dataset.variables.items() if of.encoding.get("chunksizes")})
    except SceneError:
        raise
    except Exception as error:  # of each kind of backend
        raise SceneError(f"{path} cannot be opened as NetCDF: {printable(str(error))[:200]}") from error
    return replace(dataset_source(dataset, path), paths=(path,))
