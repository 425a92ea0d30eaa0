"""The picture of the package's floors, drawn from the list that tests hold the code to."""

import ast
import html
import tomllib
from pathlib import Path

ROOM_WIDTH, ROOM_HEIGHT, GAP = 182, 62, 10  # pixels
LABEL_WIDTH, LEGEND_HEIGHT = 34, 24
LINE = 31  # characters of a room's purpose in a line
PURPOSE_LINES = 2
STYLE = """
    .floor { fill: #f3f4f6 }
    .none { fill: #ffffff; stroke: #9ca3af }
    .torch { fill: #fee2e2; stroke: #b91c1c }
    .optuna { fill: #dbeafe; stroke: #1d4ed8 }
    .both { fill: #fde68a; stroke: #b45309 }
    text { font-family: system-ui, sans-serif; fill: #111827; font-size: 10px }
    .name { font-size: 13px; font-weight: 600 }
    .number { fill: #4b5563; font-size: 12px }
    @media (prefers-color-scheme: dark) {
      .floor { fill: #1f2937 }
      .none { fill: #111827; stroke: #6b7280 }
      .torch { fill: #450a0a; stroke: #f87171 }
      .optuna { fill: #172554; stroke: #60a5fa }
      .both { fill: #78350f; stroke: #fbbf24 }
      text { fill: #f3f4f6 }
      .number { fill: #d1d5db }
    }"""
TORCH, OPTUNA = {"torch", "torchvision", "timm", "safetensors"}, {"optuna", "optuna_dashboard"}
LEGEND = {"torch": "imports torch", "optuna": "imports Optuna", "both": "both", "none": "neither"}
TITLE = "Floors of the package tlopt, highest first. A room imports only from lower floors and from itself."


def floors(root: Path) -> list[list[str]]:
    """Names of rooms, lowest floor first."""
    raw = tomllib.loads((root / "tests" / "floors.toml").read_text(encoding="utf-8"))
    return [floor["rooms"] for floor in raw["floor"]]


def svg(root: Path) -> str:
    """The picture: a row for each floor, the highest on top, and a box with its purpose for each room."""
    rows = [[name for name in floor if name != "__main__"] for floor in floors(root)]
    rows = [row for row in rows if row]
    width = LABEL_WIDTH + max(map(len, rows)) * (ROOM_WIDTH + GAP) + GAP
    height = len(rows) * (ROOM_HEIGHT + 2 * GAP) + GAP + LEGEND_HEIGHT
    body = [
        part
        for place, (number, row) in enumerate(reversed(list(enumerate(rows, start=1))))
        for part in _row(root, number, row, y=GAP + place * (ROOM_HEIGHT + 2 * GAP), width=width)
    ]
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" role="img"'
            f' viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
            f"  <title>{TITLE}</title>",
            f"  <style>{STYLE}\n  </style>",
            *body,
            *_legend(y=height - LEGEND_HEIGHT),
            "</svg>",
            "",
        ]
    )


def _row(root: Path, number: int, names: list[str], *, y: int, width: int) -> list[str]:
    middle = y + ROOM_HEIGHT / 2 + 4
    parts = [
        f'  <rect class="floor" y="{y - GAP / 2:g}" width="{width}" height="{ROOM_HEIGHT + GAP}" rx="4"/>',
        f'  <text class="number" x="10" y="{middle:g}">{number}</text>',
    ]
    for place, name in enumerate(names):
        parts += _room(root, name, x=LABEL_WIDTH + place * (ROOM_WIDTH + GAP), y=y)
    return parts


def _room(root: Path, name: str, *, x: int, y: int) -> list[str]:
    kind, lines = _kind(root, name), _purpose(root, name)
    return [
        f'  <rect class="{kind}" x="{x}" y="{y}" width="{ROOM_WIDTH}" height="{ROOM_HEIGHT}" rx="4"/>',
        f'  <text class="name" x="{x + 8}" y="{y + 20}">{html.escape(name)}</text>',
        *(
            f'  <text x="{x + 8}" y="{y + 36 + 14 * line}">{html.escape(text)}</text>'
            for line, text in enumerate(lines)
        ),
    ]


def _legend(*, y: int) -> list[str]:
    parts = []
    for place, (kind, words) in enumerate(LEGEND.items()):
        x = LABEL_WIDTH + place * 130
        parts.append(f'  <rect class="{kind}" x="{x}" y="{y}" width="14" height="14" rx="2"/>')
        parts.append(f'  <text x="{x + 20}" y="{y + 11}">{words}</text>')
    return parts


def _kind(root: Path, name: str) -> str:
    """Which of torch and Optuna the room's modules import: a key of `LEGEND`."""
    folder = root / "tlopt" / name
    files = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    found: set[str] = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.Import(names):
                    found |= {alias.name.split(".")[0] for alias in names}
                case ast.ImportFrom(module=str(module)):
                    found.add(module.split(".")[0])
    torch, optuna = bool(found & TORCH), bool(found & OPTUNA)
    return "both" if torch and optuna else "torch" if torch else "optuna" if optuna else "none"


def _purpose(root: Path, name: str) -> list[str]:
    """The first words of a room's docstring, up to its first full stop, in at most two lines."""
    folder = root / "tlopt" / name
    source = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    words = docstring.split("\n\n")[0].partition(":")[0].partition(". ")[0].rstrip(".").split()
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) >= LINE and lines[-1]:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    if len(lines) > PURPOSE_LINES:
        lines = [*lines[: PURPOSE_LINES - 1], lines[PURPOSE_LINES - 1] + " …"]
    return lines
