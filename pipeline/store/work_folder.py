"""The folder beside an output, `OUTPUT.unfinished`, in which a run keeps what the same call continues after a kill."""

from dataclasses import dataclass

from models.errors import StoreError

from .files import Files
from .store import MARKERS, RUN, store_errors

OLD, NOTHING = f"{MARKERS}/old", "nothing"  # what the output replaces


@dataclass(frozen=True, slots=True)
class WorkFolder:
    """A run's folder of unfinished work.

    Parameters
    ----------
    output
        Path or URL of what is written at the end.
    run
        Tells this run from others, as a digest of all that decides the output.
    """

    output: str
    run: str

    @property
    def folder(self) -> str:
        """Path or URL of the folder."""
        return f"{self.output}.unfinished"

    def begin(self) -> None:
        """Take the folder for this run; the steps that another run has left there go.

        Raises
        ------
        StoreError
            It cannot be written, or holds what no run has left.
        """
        files = Files(self.folder)
        with store_errors(self.folder):
            try:
                if files.names("") and not files.exists(MARKERS):
                    raise StoreError(f"{self.folder} is not ours to work in; move it away, or choose another output")
                if self._begun() != self.run:
                    files.remove(OLD)
                    files.write(RUN, self.run.encode())  # before the rest goes: the folder must stay known as ours
                    for name in {f"{MARKERS}/{name}" for name in files.names(MARKERS)} - {RUN}:
                        files.remove(name)
                files.write(OLD, self._there().encode())
            except OSError as error:
                raise StoreError(f"{self.folder} cannot be written: {error.strerror or error}") from error

    def has_written(self) -> bool:
        """Whether this very run has written the output since, and was killed before it could remove the folder."""
        files = Files(self.folder)
        return (
            self._begun() == self.run
            and files.exists(OLD)
            and files.read(OLD).decode(errors="replace") not in ("", self._there())
        )

    def is_ours(self) -> bool:
        """Whether the folder is there, and of this run."""
        return self._begun() == self.run

    def remove(self) -> None:
        """Remove the folder with all that is in it; what tells whose it is comes last, for a kill meanwhile."""
        files = Files(self.folder)
        with store_errors(self.folder):
            steps = [f"{MARKERS}/{name}" for name in files.names(MARKERS)]
            for name in (*files.names(""), *steps):
                if name not in (MARKERS, RUN, OLD):
                    files.remove(name)
            files.remove(MARKERS)
            files.remove_empty()

    def _begun(self) -> str | None:
        """Return the run that the folder is of."""
        files = Files(self.folder)
        return files.read(RUN).decode(errors="replace") if files.exists(RUN) else None

    def _there(self) -> str:
        """Return what tells the output that is there now from others."""
        files = Files(self.output)
        return files.stamp() if files.exists() else NOTHING
