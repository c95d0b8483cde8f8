"""Profiles of clusters that a run starts: TOML files, a dataclass for each kind in `launchers`, checked before use."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any

from models.errors import ArgumentError, ClusterError, require_extra
from models.limits import LARGEST_TOML, parse_toml, read_small
from models.options import meanings
from models.redact import redact_url
from models.tables import HIDDEN, from_table


@dataclass(frozen=True, slots=True)
class Launcher:
    """Where a kind of cluster is started.

    Parameters
    ----------
    module
        Of `launchers`: it has `start(profile, options)`, which returns an object of Dask's `Cluster` kind. That may
        offer `waiting_for() -> str`, what its queue is at, as "2 Slurm jobs pending".
    profile
        The frozen dataclass of that module that its TOML files hold. Where it has a field `path`, that is the file's
        own; where it has `on_this_machine`, whether all that is started listens to this machine alone.
    library
        The package that it needs, as that is imported.
    field
        Of the profile: what may stand in place of a file, as hosts with commas between. Empty: nothing may.
    private
        Whether what is started is encrypted whatever we say, so that nothing need be asked for.
    """

    module: str
    profile: str
    library: str
    field: str = ""
    private: bool = False


LAUNCHERS: Mapping[str, Launcher] = {
    "slurm": Launcher("jobqueue", "SlurmProfile", "dask_jobqueue"),
    "pbs": Launcher("jobqueue", "PbsProfile", "dask_jobqueue"),
    "lsf": Launcher("jobqueue", "LsfProfile", "dask_jobqueue"),
    "sge": Launcher("jobqueue", "SgeProfile", "dask_jobqueue"),
    "kubernetes": Launcher("kubernetes", "KubernetesProfile", "dask_kubernetes"),
    "gateway": Launcher("gateway", "GatewayProfile", "dask_gateway", "address", private=True),
    "coiled": Launcher("coiled", "CoiledProfile", "coiled", private=True),
    "ssh": Launcher("ssh", "SshProfile", "asyncssh", "hosts"),
}


def launcher_module(kind: str) -> Any:
    """Import where a kind of cluster is started.

    Raises
    ------
    ClusterError
        The package that it needs is not installed; or this version of Swathe has no such launcher.
    """
    launcher = LAUNCHERS[kind]
    require_extra("cluster", kind, launcher.library, error=ClusterError)
    name = f"{__package__}.launchers.{launcher.module}"
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise
        raise ClusterError(
            f"{kind}: this version of Swathe starts no such cluster; start it, and give its address as tcp://host:8786"
        ) from error


def shown_name(scheduler: str) -> str:
    """Return what `--scheduler` names without the secrets that a URL may hold."""
    kind, colon, text = scheduler.partition(":")
    return f"{kind}:{redact_url(text)}" if colon and kind in LAUNCHERS else redact_url(scheduler)


def read_profile(kind: str, text: str) -> Any:
    """Read the profile of a cluster: the dataclass that its launcher takes.

    Parameters
    ----------
    kind
        As `slurm`.
    text
        Path of a TOML file; or what the launcher takes in its place, as hosts with commas between.

    Raises
    ------
    ClusterError
        No file, no TOML, a key that is unknown or missing, or a value that makes no sense; or a missing package.
    """
    launcher, profile = LAUNCHERS[kind], profile_type(kind)
    is_file = not launcher.field or text.endswith(".toml")
    if not text:
        takes = "FILE.toml" if not launcher.field else f"{launcher.field.upper()} or {kind}:FILE.toml"
        raise ClusterError(f"{kind}: names nothing; give {kind}:{takes}, see `swathe cluster template {kind}`")
    table = _table(kind, text) if is_file else {launcher.field: _in_place(profile, launcher.field, text)}
    if is_file and HIDDEN in {field.name for field in fields(profile)}:
        table[HIDDEN] = text
    try:
        return from_table(profile, table, "")
    except (ArgumentError, ClusterError) as error:
        raise ClusterError(f"{shown_name(f'{kind}:{text}')}: {error}") from error


def profile_type(kind: str) -> type[Any]:
    """Return the dataclass of a kind's profile."""
    profile: type[Any] = getattr(launcher_module(kind), LAUNCHERS[kind].profile)
    return profile


def _table(kind: str, path: str) -> dict[str, Any]:
    hint = f"`swathe cluster template {kind}` prints one"
    try:
        table = parse_toml(read_small(Path(path).expanduser(), LARGEST_TOML, ClusterError))
    except OSError as error:
        raise ClusterError(f"the profile {path} cannot be read: {error.strerror}; {hint}") from error
    except ValueError as error:
        raise ClusterError(f"the profile {path} is not TOML: {error}; {hint}") from error
    if HIDDEN in table:
        raise ClusterError(f"{kind}:{path}: unknown key {HIDDEN!r}; {hint}")
    return table


def _in_place(profile: type[Any], field: str, text: str) -> str | list[str]:
    """Return what stands in place of a file: text, or a list of it where the field is one."""
    several = "tuple" in str(profile.__annotations__[field])
    return [part.strip() for part in text.split(",")] if several else text


def template(kind: str) -> str:
    """Return a commented TOML file for a kind of cluster, which `read_profile` accepts.

    What must be said stands with the `example` of its field's metadata; all else is commented out, with its default
    or, where that is nothing, the example.
    """
    profile = profile_type(kind)
    lines = [f"# {(profile.__doc__ or kind).splitlines()[0]}", f"# For --scheduler {kind}:FILE.toml", ""]
    told = meanings(profile)
    tables = list[str]()
    for field in fields(profile):
        if field.name == HIDDEN:
            continue
        needed = field.default is MISSING and field.default_factory is MISSING
        default = None if needed else _default(field)
        value = field.metadata.get("example", default) if default in (None, "", (), {}) else default
        comment = [f"# {line}" for line in told[field.name].splitlines()]
        if isinstance(value, Mapping):  # a table takes all that follows it
            tables += [*comment, f"# [{field.name}]", *(f"# {key} = {_toml(item)}" for key, item in value.items()), ""]
        else:
            lines += [*comment, f"{'' if needed else '# '}{field.name} = {_toml(value)}", ""]
    return "\n".join([*lines, *tables]).rstrip() + "\n"


def _default(field: Any) -> Any:
    return field.default if field.default is not MISSING else field.default_factory()


def _toml(value: Any) -> str:
    """Write a value as TOML does."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, int | float):
        return repr(value)
    quoted = str("" if value is None else value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}"'
