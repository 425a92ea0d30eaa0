"""A notebook as a Markdown page: text, code and the outputs that are stored in it."""

import base64
from pathlib import Path
from typing import Any

import nbformat


def markdown(notebook: Path, images: Path) -> str:
    """The page; pictures among the outputs become files in the folder `images` beside it."""
    cells = nbformat.read(notebook, as_version=4).cells  # type: ignore[no-untyped-call]
    parts = []
    for cell in cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        elif cell.cell_type == "code":
            parts.append(f"```python\n{cell.source}\n```")
            parts += [_output(output, images) for output in _joined(cell.outputs)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _joined(outputs: list[Any]) -> list[Any]:
    """`outputs` with what was printed in several pieces as one."""
    joined: list[Any] = []
    for output in outputs:
        if joined and output.output_type == "stream" == joined[-1].output_type:
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def _output(output: Any, images: Path) -> str:
    if output.output_type == "stream":
        return _fenced(output.text)
    data = output.get("data", {})
    if "text/html" in data:
        return f"<div>\n{data['text/html']}\n</div>"
    if "image/png" in data:
        content = base64.b64decode(data["image/png"])
        images.mkdir(parents=True, exist_ok=True)
        file = images / f"{len(list(images.iterdir()))}.png"
        file.write_bytes(content)
        return f"![output]({images.name}/{file.name})"
    return _fenced(data.get("text/plain", ""))


def _fenced(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```" if text.strip() else ""
