"""The judgement as a person reads it: in the terminal, and as one HTML file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from tests.audit.model import Finding, Judgement, Verdict

OK, NOT_OK = "ok", "NOT OK"
HEADINGS = ("auditor", "figure", "wanted", "")


def row(verdict: Verdict) -> tuple[str, str, str, str]:
    result = verdict.result
    return result.auditor, result.figure, result.wanted, OK if verdict.ok else NOT_OK


def table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(cells[column]) for cells in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in rows
    )


def line(finding: Finding) -> str:
    """`CIS 5.2.4  sshd_limit_user_access  Limit Users' SSH Access (what was found)`"""
    return "  ".join(part for part in (finding.group, finding.id, finding.title) if part) + (
        f" ({finding.detail})" if finding.detail else ""
    )


def terminal(judgement: Judgement, subject: str) -> str:
    parts = [f"audit of {subject}", "", table([HEADINGS, *map(row, judgement.verdicts)])]
    for verdict in judgement.verdicts:
        if verdict.unwaived:
            parts += ["", f"{verdict.result.auditor}: {len(verdict.unwaived)} not waived"]
            parts += [f"  {line(finding)}" for finding in verdict.unwaived]
    if judgement.stale:
        parts += ["", f"waivers: {len(judgement.stale)} stale; what they excuse does not happen (any more)"]
        parts += [f"  {waiver.auditor}  {waiver.id}  {waiver.reason}" for waiver in judgement.stale]
    waived = sum(len(verdict.waived) for verdict in judgement.verdicts)
    unwaived = sum(len(verdict.unwaived) for verdict in judgement.verdicts)
    good = sum(verdict.ok for verdict in judgement.verdicts)
    summary = (
        f"{good} of {len(judgement.verdicts)} auditors content; {unwaived} findings not waived, {waived} waived, "
        f"{len(judgement.stale)} waivers stale: {OK if judgement.ok else NOT_OK}"
    )
    return "\n".join([*parts, "", summary])


STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #1a7f37; --bad: #cf222e; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
th, td { text-align: left; vertical-align: top; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line); }
code { font-size: .9em; overflow-wrap: anywhere; }
.ok { color: var(--good); font-weight: 600; }
.not-ok { color: var(--bad); font-weight: 600; }
.detail { opacity: .75; }
td:first-child { white-space: nowrap; }
summary { cursor: pointer; margin: .5rem 0; }
"""


def html(judgement: Judgement, subject: str, facts: Iterable[tuple[str, str]]) -> str:
    body = [
        f"<h1>Audit of {escape(subject)}: {_verdict(judgement.ok)}</h1>",
        "<p>" + "<br>".join(f"{escape(name)}: {escape(value)}" for name, value in facts) + "</p>",
        _table(
            HEADINGS,
            [
                [f'<a href="#{escape(v.result.auditor)}">{escape(v.result.auditor)}</a>', *map(escape, row(v)[1:3])]
                + [_verdict(v.ok)]
                for v in judgement.verdicts
            ],
        ),
    ]
    if judgement.stale:
        rows = [[escape(one.auditor), _code(one.id), escape(one.reason)] for one in judgement.stale]
        body += ["<h2>Stale waivers</h2>", "<p>What they excuse does not happen (any more): delete them.</p>"]
        body.append(_table(("auditor", "id", "reason"), rows))
    body += [part for verdict in judgement.verdicts for part in _section(verdict)]
    head = f'<meta charset="utf-8"><title>Audit of {escape(subject)}</title><style>{STYLE}</style>'
    lines = ["<!doctype html>", '<html lang="en">', f"<head>{head}</head>", "<body>", *body, "</body>", "</html>", ""]
    return "\n".join(lines)


def _section(verdict: Verdict) -> list[str]:
    result = verdict.result
    parts = [
        f'<h2 id="{escape(result.auditor)}">{escape(result.title)}: {_verdict(verdict.ok)}</h2>',
        f"<p>{escape(result.figure)}. Wanted: {escape(result.wanted)}.</p>",
    ]
    if verdict.unwaived:
        parts.append(f"<h3>Not waived: {len(verdict.unwaived)}</h3>")
        parts.append(_table(("", "id", "what"), [_cells(finding) for finding in verdict.unwaived]))
    if verdict.waived:
        rows = [[*_cells(finding), escape(waiver.reason)] for finding, waiver in verdict.waived]
        parts += [f"<h3>Waived: {len(rows)}</h3>", _table(("", "id", "what", "why it is accepted"), rows)]
    if result.advice:
        advice = _table(("", "id", "what"), [_cells(finding) for finding in result.advice])
        parts.append(f"<details><summary>Advice: {len(result.advice)}</summary>{advice}</details>")
    return parts


def _cells(finding: Finding) -> list[str]:
    detail = f'<br><span class="detail">{escape(finding.detail)}</span>' if finding.detail else ""
    return [escape(finding.group), _code(finding.id), escape(finding.title) + detail]


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    lines = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>" for cells in rows)
    return f"<table>\n<tr>{head}</tr>\n{lines}\n</table>"


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _verdict(ok: bool) -> str:
    return f'<span class="{"ok" if ok else "not-ok"}">{OK if ok else NOT_OK}</span>'
