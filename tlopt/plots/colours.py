"""The colours of pages and figures; tests/plots checks their contrasts by WCAG 2.2."""

from dataclasses import asdict, dataclass

CELL_SHARE_MAX = 0.5  # opacity of a colour on the page, in a cell with a number or a dot in `ink`
BAND_SHARE = 0.18  # opacity of a band between edges that are marks


@dataclass(frozen=True, kw_only=True)
class Palette:
    """Colours as "#rrggbb": contrast of text 4.5:1 or more, of marks 3:1 or more; grid lines are decorative.

    Attributes:
        page: background of pages and figures.
        card: background of tiles and listings.
        mark: background of highlights, with text in `ink` only.
        ink: text.
        muted: secondary text, axes.
        rule: rules and grid lines.
        point: marks and links.
        line: second colour of marks; mistakes.
        third: third colour of marks.
        pale: marks in the background.
    """

    page: str
    card: str
    mark: str
    ink: str
    muted: str
    rule: str
    point: str
    line: str
    third: str
    pale: str

    @property
    def css(self) -> str:
        """Declarations of CSS variables: "--page: #ffffff; ..."."""
        return " ".join(f"--{name}: {colour};" for name, colour in asdict(self).items())

    def __getitem__(self, name: str) -> str:
        return str(getattr(self, name))


LIGHT = Palette(
    page="#ffffff",
    card="#f5f6f8",
    mark="#fdf1e7",
    ink="#1d2430",
    muted="#5f6a7d",
    rule="#dfe3e8",
    point="#2f6fd0",
    line="#c2410c",
    third="#0f766e",
    pale="#7f8b9b",
)
DARK = Palette(
    page="#14181f",
    card="#1d232d",
    mark="#35291f",
    ink="#e4e8ee",
    muted="#98a2b3",
    rule="#323b48",
    point="#74a9f7",
    line="#f59a5b",
    third="#2dd4bf",
    pale="#76839a",
)


def blend(colour: str, background: str, opacity: float) -> str:
    """`colour` on `background` with an opacity in [0, 1], mixed by channel in sRGB as in CSS."""
    return "#" + "".join(
        f"{round(opacity * a + (1 - opacity) * b):02x}"
        for a, b in zip(bytes.fromhex(colour[1:]), bytes.fromhex(background[1:]), strict=True)
    )
