"""As many workers as there is work for, between a least and a most: what profiles call `adapt`."""

from typing import Any

from models.errors import ClusterError


def check_range(adapt: tuple[int, ...], what: str) -> None:
    """Refuse what is neither nothing nor a least and a most number of `what`. Raises ClusterError."""
    if adapt and (len(adapt) != 2 or not 0 <= adapt[0] <= adapt[1]):
        raise ClusterError(f"adapt is two numbers of {what}, the least and the most; received {list(adapt)}")


def follow_work(cluster: Any, adapt: tuple[int, ...]) -> None:
    """Let a cluster of Dask's grow and shrink between the two numbers, if they are given."""
    if adapt:
        cluster.adapt(minimum=adapt[0], maximum=adapt[1])
