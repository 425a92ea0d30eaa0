"""Tables for notebooks: pandas data frames and HTML."""

import html
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from tlopt.errors import MissingExtra


def data_frame(rows: Iterable[Mapping[str, object]]) -> Any:
    """Build a pandas data frame from `rows`.

    Raises:
        MissingExtra: pandas is not installed.
    """
    if find_spec("pandas") is None:
        raise MissingExtra('data frames need pandas: pip install "tlopt[notebook]"')
    import pandas

    return pandas.DataFrame([dict(row) for row in rows])


def html_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Build an HTML table; cells are escaped."""
    line = "<tr>" + "".join(f"<th>{html.escape(name)}</th>" for name in head) + "</tr>"
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead>{line}</thead><tbody>{body}</tbody></table>"
