"""Self-contained HTML pages: a template filled with style, script and images that are data URIs."""

import base64
import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHARED = Path(__file__).parent / "report_page"  # the report's; its style and script serve every page


def render_page(folder: Path, context: Mapping[str, Any]) -> str:
    """Fill the template of a folder, which may add to the style; what comes from data is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    loader = FileSystemLoader(folder)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    styles = dict.fromkeys((SHARED / "style.css", folder / "style.css"))
    style = Markup("\n".join(path.read_text(encoding="utf-8") for path in styles))
    script = Markup((SHARED / "script.js").read_text(encoding="utf-8"))
    script_hash = f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
    template = environment.get_template("template.html.j2")
    return template.render(style=style, script=script, script_hash=script_hash, **context)


def data_uri(pixels: NDArray[np.uint8], kind: str, palette: NDArray[np.uint8] | None = None, **settings: Any) -> str:
    """Encode an image `(y, x, 3)` or, with alpha, `(y, x, 4)`, or indices `(y, x)` into a palette `(n, 3)`."""
    from PIL import Image

    picture, content = Image.fromarray(pixels), io.BytesIO()
    if palette is not None:
        picture.putpalette(palette.tobytes().ljust(768, b"\0"))  # of all 256 places, or fewer bits would be kept
    picture.save(content, kind, **settings)
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"
