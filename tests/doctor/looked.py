"""Selection of findings from the result of a check."""

from collections.abc import Iterable

from tlopt.doctor.finding import Finding


def problem(findings: Iterable[Finding]) -> Finding:
    """The only problem among `findings`."""
    (found,) = problems(findings)
    return found


def problems(findings: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level == "problem"]


def titled(findings: Iterable[Finding], title: str) -> list[Finding]:
    return [finding for finding in findings if finding.title == title]
