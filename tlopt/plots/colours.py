"""The colours of pages and pictures, one table; contrasts by WCAG 2.2 are measured in tests/plots."""

from dataclasses import asdict, dataclass

CELL_SHARE_MAX = 0.5  # of a colour over the page, in a cell whose number is written in `ink`


@dataclass(frozen=True, kw_only=True)
class Palette:
    """Colours as "#rrggbb". Text has 4.5:1 against its ground, marks have 3:1; hairlines are ornament.

    Attributes:
        page: ground of page and figures.
        card: ground of tiles and listings.
        mark: ground of what stands out, with text in `ink` alone.
        ink: text.
        muted: secondary text, axes.
        rule: hairlines and grids.
        point: marks; links.
        line: marks; mistakes.
        third: marks.
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
        """As declarations of CSS variables: "--page: #ffffff; ..."."""
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


def over(colour: str, ground: str, share: float) -> str:
    """`share` of `colour` over `ground`, channel by channel as CSS mixes in sRGB."""
    return "#" + "".join(
        f"{round(share * a + (1 - share) * b):02x}"
        for a, b in zip(bytes.fromhex(colour[1:]), bytes.fromhex(ground[1:]), strict=True)
    )
