"""What a measured footprint says, apart from how it is measured, so that plans need no torch."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a network's outputs depend on.

    Parameters
    ----------
    stride
        The answer moves with the input only in steps of `stride` pixels; input sizes are multiples of it.
    radius
        An output pixel depends on no input pixel further away than this, in rows or columns. None: there is no bound
        (instance norm, squeeze-and-excitation, global pooling: every output sees the whole input).
    """

    stride: int
    radius: int | None

    @property
    def halo(self) -> int | None:
        """The exact halo: the radius rounded up to the stride, in pixels per side. None where there is none."""
        return None if self.radius is None else -(-self.radius // self.stride) * self.stride
