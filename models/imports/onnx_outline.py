"""Whether a file is ONNX, by the outermost fields of its protobuf alone: nothing is loaded, of whatever size it is.

Source of the numbers of the fields: `ModelProto` in https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from pathlib import Path
from typing import BinaryIO

from ..errors import BundleError

VERSION, GRAPH = 1, 7  # fields: that of the format, and the network
KNOWN = {VERSION, 2, 3, 4, 5, 6, GRAPH, 8, 14, 20, 25, 26}
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5  # how a field is written
MOST_FIELDS = 100_000


def is_onnx(path: Path) -> bool:
    """Tell whether a file is ONNX. Raises BundleError where its beginning is, and its end is missing."""
    size, seen = path.stat().st_size, set[int]()
    with open(path, "rb") as file:
        for _ in range(MOST_FIELDS):
            if file.tell() == size:
                return {VERSION, GRAPH} <= seen
            field, end = _next_field(file)
            if field not in KNOWN or (not seen and field != VERSION and field != 2):
                return False
            seen.add(field)
            if end > size:
                if VERSION in seen and len(seen) > 1:
                    raise BundleError(f"{path} is ONNX that was cut off: copy or download it again")
                return False
            file.seek(end)
    return False


def _next_field(file: BinaryIO) -> tuple[int, int]:
    """Return the number of the next field, and where it ends; 0: it is none."""
    key = _varint(file)
    if key is None:
        return 0, 0
    field, how = key >> 3, key & 7
    if how == VARINT:
        return (0, 0) if _varint(file) is None else (field, file.tell())
    if how == LENGTH:
        length = _varint(file)
        return (0, 0) if length is None else (field, file.tell() + length)
    if how in (FIXED64, FIXED32):
        return field, file.tell() + (8 if how == FIXED64 else 4)
    return 0, 0


def _varint(file: BinaryIO) -> int | None:
    value = 0
    for place in range(10):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << (7 * place)
        if byte[0] < 0x80:
            return value
    return None
