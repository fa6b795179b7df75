"""The moments of a deploy at which an app may have a command of its own run."""

from __future__ import annotations

from dataclasses import dataclass

#: What becomes of a deploy whose hook fails, as the page for operators says it.
BUILDING = "nothing was started; what was built is removed"
BEFORE = "the old release goes on serving; the new one is removed"
AFTER = "the new release stays, and the deploy goes on to its end; then the run fails"


@dataclass(frozen=True)
class Moment:
    """When a hook is run, for whom, on how many hosts of the app, and what a failing one does."""

    when: str
    types: tuple[str, ...]
    failing: str
    once: bool = False


_CODE = ("python", "command")
_PROCESS = (*_CODE, "container", "compose")
_ALL = (*_PROCESS, "static")

HEAD = """
## Hooks: the moments of a deploy

`hooks: {before_switch: ./check, after_stop: ./tell}` in an app. A hook is a shell command, run in the code of the new
release, as the app's user, with the app's `env`, in the sandbox of its service, for at most 15 minutes. That of an
image is run in a container of it, by no shell (`sh -c '…'` is one); that of a static site where the site's files are.

On several hosts, a hook that is run once runs on the first of them, and none of them goes on before it has ended. The
lock is taken before the first moment, when there is no code yet.

"""
TAIL = """
A run that finds nothing to do runs none. A rollback runs those of the release that it leads to, from `before_start` on,
and so does a run that has to start the live release anew. All moments come in a first deploy, too, and for an app that
no proxy leads to; there the old release has made room before `before_health`. There is none between the switch and the
watch, because several proxies are led and watched one after the other: a release that the watch finds bad is led back
at once, and never comes to `after_switch`.
"""

#: In the order of a deploy.
MOMENTS = {
    "before_build": Moment("the code is there, nothing is built", (*_CODE, "static"), BUILDING),
    "after_build": Moment("the build is done", (*_CODE, "static"), BUILDING),
    "before_migrate": Moment(
        "all hosts have built the release, or fetched its image; also where nothing migrates", _PROCESS, BEFORE, True
    ),
    "after_migrate": Moment("the migration is done; before the seed", _PROCESS, BEFORE, True),
    "before_start": Moment("nothing of the release runs", _PROCESS, BEFORE),
    "before_health": Moment("its process runs, and was not asked whether it is healthy", _PROCESS, BEFORE),
    "after_health": Moment(
        "it is healthy, and the processes beside it are still those of the old one", _PROCESS, BEFORE
    ),
    "after_start": Moment("the processes beside it have changed over, too", _PROCESS, BEFORE),
    "before_switch": Moment("it is so on all hosts, and requests still go to the old release", _ALL, BEFORE, True),
    "after_switch": Moment("requests go to the new release, and every proxy's watch is over", _ALL, AFTER, True),
    "before_stop": Moment("the old release runs on, beside the new one", _PROCESS, AFTER),
    "after_stop": Moment("the old release has ended; the deploy is done", _PROCESS, AFTER),
}
ONCE = frozenset(name for name, moment in MOMENTS.items() if moment.once)
#: Those that a repository whose files are shown as they are does not know: they belong to a build.
OF_A_BUILD = ("before_build", "after_build")


def moments_of(kind: str) -> tuple[str, ...]:
    """The moments of a deploy of such an app, in their order."""
    return tuple(name for name, moment in MOMENTS.items() if kind in moment.types)


def page() -> str:
    """All moments as a section of Markdown."""
    lines = ["| moment | when | types | on | when it fails |", "|---|---|---|---|---|"]
    for name, moment in MOMENTS.items():
        where = "the first host" if moment.once else "each host"
        types = "all" if moment.types == _ALL else ", ".join(moment.types)
        lines.append(f"| `{name}` | {moment.when} | {types} | {where} | {moment.failing} |")
    return HEAD + "\n".join(lines) + "\n" + TAIL
