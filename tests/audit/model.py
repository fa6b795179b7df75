"""What every auditor's output is turned into, and how it is held against the waivers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class AuditError(Exception):
    """A failure the user can act on: the message says what to do."""


@dataclass(frozen=True)
class Finding:
    """One thing an auditor does not like. The id is the auditor's own, and what a waiver names."""

    id: str
    title: str
    group: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Result:
    """One auditor's opinion."""

    auditor: str
    title: str
    figure: str
    wanted: str
    #: Whether the figure alone is good enough, whatever is waived.
    within: bool
    #: Each of these needs a waiver, or spoils the result.
    failures: tuple[Finding, ...] = ()
    #: Advice that decides nothing, for whoever wants a better figure.
    advice: tuple[Finding, ...] = ()
    #: An auditor that broke down says nothing about the waivers made for it.
    spoke: bool = True


@dataclass(frozen=True)
class Waiver:
    """A failure that is accepted, and why. `images` narrows it to the droplets where it is true."""

    auditor: str
    id: str
    reason: str
    images: tuple[str, ...] = ()

    def covers(self, auditor: str, finding: Finding, image: str) -> bool:
        return self.auditor == auditor and self.id == finding.id and self.holds_on(image)

    def holds_on(self, image: str) -> bool:
        return not self.images or image in self.images


@dataclass(frozen=True)
class Verdict:
    result: Result
    waived: tuple[tuple[Finding, Waiver], ...]
    unwaived: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return self.result.within and not self.unwaived


@dataclass(frozen=True)
class Judgement:
    verdicts: tuple[Verdict, ...]
    #: Waivers that cover nothing: what they excuse has been mended, or their id is misspelt.
    stale: tuple[Waiver, ...]

    @property
    def ok(self) -> bool:
        return all(verdict.ok for verdict in self.verdicts) and not self.stale


def judge(results: Sequence[Result], waivers: Sequence[Waiver], image: str) -> Judgement:
    verdicts = []
    used: set[Waiver] = set()
    for result in results:
        waived: list[tuple[Finding, Waiver]] = []
        unwaived: list[Finding] = []
        for finding in result.failures:
            waiver = next((one for one in waivers if one.covers(result.auditor, finding, image)), None)
            if waiver:
                used.add(waiver)
                waived.append((finding, waiver))
            else:
                unwaived.append(finding)
        verdicts.append(Verdict(result, tuple(waived), tuple(unwaived)))
    spoke = {result.auditor for result in results if result.spoke}
    stale = [one for one in waivers if one.auditor in spoke and one.holds_on(image) and one not in used]
    return Judgement(tuple(verdicts), tuple(stale))
