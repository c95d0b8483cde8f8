"""The verbs `swathe cluster ...`: certificates, templates of profiles, and a look at a cluster. Light to import."""

import click

from ..cluster.profiles import LAUNCHERS

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
(certificates for this run alone) or --insecure."""


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
    click.echo(f"  dask scheduler --protocol tls {files}\n  dask worker tls://HOST:8786 {files}")


@cluster.command(epilog="Example: swathe cluster template slurm > cluster.toml")
@click.argument("kind", type=click.Choice(list(LAUNCHERS)))
def template(kind: str) -> None:
    """Print a profile for a KIND of cluster, with comments, to fill in."""
    from ..cluster.profiles import template as template_of

    click.echo(template_of(kind), nl=False)
