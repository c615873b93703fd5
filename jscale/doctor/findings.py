"""What was found, for people and for programs."""

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from typing import Any


class Verdict(enum.Enum):
    """What a finding means for a worker."""

    GOOD = "good"
    PLAIN = "plain"
    LACKING = "lacking"
    """It works without, but slower, or not by RDMA."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
      name: what it is, in a word or two; unique in its section.
      text: what was found.
      verdict: what that means.
      advice: what to install or set; none: nothing.
      details: lines of their own below the text.
      facts: the same for programs.
    """

    name: str
    text: str
    verdict: Verdict = Verdict.PLAIN
    advice: str = ""
    details: tuple[str, ...] = ()
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Section:
    """Findings about one subject."""

    title: str
    findings: Sequence[Finding]


def as_json(sections: Sequence[Section]) -> dict[str, Any]:
    """The findings by section and name, with their facts beside their text."""
    return {
        section.title: {
            finding.name: {
                "text": finding.text,
                "verdict": finding.verdict.value,
                "advice": finding.advice,
                **finding.facts,
            }
            for finding in section.findings
        }
        for section in sections
    }


def is_good(condition: bool) -> Verdict:
    """GOOD if it holds, else LACKING."""
    return Verdict.GOOD if condition else Verdict.LACKING
