"""The verb `verify`. Imports nothing heavy before it runs, so that help is quick."""

from typing import TYPE_CHECKING, Any

import click

from .options import note, on_cluster, quieting, workers_option

if TYPE_CHECKING:
    from ..postprocess.verify import Verification

DAMAGED = 4  # exit code
SHOWN = 100  # files that are named, if not all are asked for


@click.command(
    epilog="Example: swathe verify maps.zarr\n\nExample: swathe verify maps.zarr --repair --scene moved/scene.tif\n\n"
    "Example: swathe verify s3://bucket/maps --quick"
)
@click.argument("output", metavar="OUT")
@click.option("--quick", is_flag=True, help="Compare names and sizes alone; nothing is read.")
@click.option("--repair", is_flag=True, help="Of a store: do what is damaged again.")
@click.option("--scene", metavar="SCENE",
              help="The scene, or the store OUT was made of.  [default: where it was]")  # fmt: skip
@click.option("-m", "--model", "bundle", metavar="BUNDLE", help="The bundle.  [default: where it was]")
@click.option("--all", "every", is_flag=True, help=f"Name all that is damaged, not {SHOWN} files.")
@on_cluster
@quieting
@workers_option
def verify(
    output: str, repair: bool, scene: str | None, bundle: str | None, quiet: bool, every: bool, **rest: Any
) -> None:
    """Read all of OUT, a store, file or publication of Swathe's, and compare it with what was written.

    Every missing or damaged part is named, and the exit code is then 4. --repair does the damaged blocks of a store
    again from its scene or store, and puts other files back from its manifest. Interrupted, the same command continues.
    """
    if not repair and (scene is not None or bundle is not None):
        raise click.UsageError("--scene and --model are for --repair")
    note(f"swathe: {'looking at the sizes of' if rest['quick'] else 'reading'} {output}", quiet)
    from ..postprocess.verify import verify as check

    found = check(output, repair=repair, scene=scene, bundle=bundle, show=not quiet, **rest)
    _tell(found, output, repair=repair, most=None if every else SHOWN)
    if not found.whole:
        click.get_current_context().exit(DAMAGED)


def _tell(found: "Verification", output: str, *, repair: bool, most: int | None) -> None:
    from .describe import counted

    for problem in found.repaired[:most]:
        click.echo(f"repaired: {problem.name} (it was {problem.what})")
    for problem in found.problems[:most]:
        click.echo(str(problem))
    for said in found.notes:
        click.echo(f"note: {said}")
    size = f", {found.size / 1e6:,.1f} MB" if found.size else ""
    if found.whole:
        click.echo(f"{output} is whole: {counted(found.files, 'file')}{size}, in {found.seconds:.1f} s")
        return
    advice = "" if repair or not found.is_store else f"; `swathe verify {output} --repair` mends it"
    click.echo(f"{output} is damaged: {len(found.damaged):,} of {counted(found.files, 'file')}{advice}")
