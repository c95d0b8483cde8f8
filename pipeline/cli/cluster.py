"""The verbs `swathe cluster ...`: certificates, templates of profiles, and a look at a cluster. Light to import."""

from typing import Any

import click

from ..cluster.profiles import LAUNCHERS, shown_name
from .options import allow_option, note, on_cluster

NAMES = """\b
What --scheduler may name:
  local            one process of this machine for each core or GPU
  local:4          four processes; local:4x2: of two threads each
  tcp://HOST:8786  a scheduler that runs; tls:// with --tls FOLDER
  slurm:FILE.toml  workers as jobs of a queue; also pbs:, lsf:, sge:
  ssh:HOST,HOST    workers on these machines, or ssh:FILE.toml
  kubernetes:FILE.toml, coiled:FILE.toml, gateway:URL
\b
What is started ends with the run. Where other machines could speak to it, it asks for --tls FOLDER, --tls new
(certificates for this run alone) or --insecure.
\b
Example: swathe cluster doctor --scheduler local:2"""


@click.group(epilog=NAMES)
def cluster() -> None:
    """Prepare and examine what --scheduler names."""


@cluster.command(epilog="Example: swathe cluster certificates ~/.swathe-tls --days 90")
@click.argument("folder")
@click.option("--days", type=click.IntRange(1, 3650), default=365, show_default=True, help="How long they hold.")
def certificates(folder: str, days: int) -> None:
    """Make certificates for a cluster, for --tls FOLDER here and for its scheduler and workers.

    FOLDER holds ca.pem, cert.pem and key.pem. Whoever can read key.pem can use the cluster; only you can.
    """
    from ..cluster.certificates import write_certificates

    made = write_certificates(folder, days=days)
    click.echo(f"wrote {made}: ca.pem, cert.pem, key.pem (secret), for {days} days")
    files = f"--tls-ca-file {made}/ca.pem --tls-cert {made}/cert.pem --tls-key {made}/key.pem"
    both = f"--dashboard-address 127.0.0.1:0 {files}"  # by Dask's default its pages are on all addresses
    click.echo(f"  dask scheduler --protocol tls {both}\n  dask worker tls://HOST:8786 {both}")


@cluster.command(epilog="Example: swathe cluster template slurm > cluster.toml")
@click.argument("kind", type=click.Choice(list(LAUNCHERS)))
def template(kind: str) -> None:
    """Print a profile for a KIND of cluster, with comments, to fill in."""
    from ..cluster.profiles import template as template_of

    click.echo(template_of(kind), nl=False)


@cluster.command(epilog="Example: swathe cluster prices > prices.toml")
def prices() -> None:
    """Print a file of prices, with comments, to fill in for `swathe plan --cost`."""
    from ..inference.prices import SKELETON

    click.echo(SKELETON, nl=False)


@cluster.command(epilog="Example: swathe cluster doctor --scheduler slurm:cluster.toml --tls new -m buildings "
                        "--scene scene.tif -o maps.zarr")  # fmt: skip
@on_cluster
@click.option("-m", "--model", "bundle", metavar="BUNDLE", help="Whether workers have it, or can be given it.")
@click.option("--scene", metavar="SCENE", help="Whether workers can read it, and it is the same file.")
@click.option("-o", "--output", metavar="OUT", help="Whether workers can write beside it, and it is the same disk.")
@allow_option
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def doctor(client: Any, bundle: str | None, scene: str | None, output: str | None, quiet: bool) -> None:
    """Examine a cluster: what its workers are, whether each is fit for a run and why not, and how quick it is.

    A cluster that is named by its profile is started, and ends when all is shown. Exit code 1: no worker is fit.
    """
    if client is None:
        raise click.UsageError("give --scheduler, see `swathe cluster`")
    note(f"swathe: examining {shown_name(client.scheduler)}", quiet)
    from ..inference.doctor import examine_cluster
    from .describe_cluster import print_report

    report = examine_cluster(
        client, bundle=bundle, scene=scene, output=output, say=lambda text: note(f"waiting: {text}", quiet)
    )
    print_report(report)
    if not report.fit:
        raise SystemExit(1)


@cluster.command(epilog="Example: swathe cluster worker tls://head:8786 --tls ~/.swathe-tls --lifetime 55m")
@click.argument("address")
@click.option(
    "--threads", type=click.IntRange(1), help="Of each worker; by default 8 of one with a GPU, else all cores."
)
@click.option("--memory", metavar="SIZE", help="Of each worker, as 16GB; by default its share of this machine's.")
@click.option("--gpus/--no-gpus", default=None, help="Whether each worker has a GPU; by default where there are any.")
@click.option("--lifetime", metavar="TIME", help="After which workers finish their blocks and leave, as 55m.")
@click.option("--tls", metavar="FOLDER", help="Folder of certificates (ca.pem, cert.pem, key.pem).")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing.")
def worker(
    address: str,
    threads: int | None,
    memory: str | None,
    gpus: bool | None,
    lifetime: str | None,
    tls: str | None,
    quiet: bool,
) -> None:
    """Give this machine's GPUs or cores to the scheduler at ADDRESS: a worker for each GPU, or each --threads cores.

    Workers listen on the way to the scheduler alone. At SIGTERM, Ctrl-C or the end of --lifetime they finish the
    blocks that they compute, for at most 20 seconds, and leave.
    """
    note(f"swathe: starting workers for {shown_name(address)}", quiet)
    from ..cluster.options import Cluster, seconds_of
    from ..cluster.serve_workers import WorkerOptions, serve_workers
    from ..cluster.tls import security_of

    seconds = None if lifetime is None else seconds_of(lifetime)
    options = WorkerOptions(threads, memory, gpus, seconds, security_of(Cluster(address, tls)))
    serve_workers(address, options, lambda text: note(f"swathe: {text}", quiet))
