"""What the doctor's checks give: findings, and their table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vggrepro.errors import InputError

OK, WARNING, BROKEN = "ok", "warning", "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """A row: ok, warning or broken; what was looked at; what was found; what to do."""

    state: str
    check: str
    result: str
    advice: str = ""


def guarded(name: str, check: Callable[[], Finding | list[Finding]]) -> list[Finding]:
    """A check's findings; its failure is one of them."""
    try:
        found = check()
    except InputError as error:
        return [Finding(BROKEN, name, str(error))]
    except Exception as error:  # whatever a broken installation or file throws
        line = (str(error).strip() or "no message").splitlines()[0]
        return [Finding(BROKEN, name, f"the check failed: {type(error).__name__}: {line}", "see the result")]
    return found if isinstance(found, list) else [found]


def table(findings: Sequence[Finding]) -> str:
    """State, check and result in columns, the advice below."""
    wide = max(len(finding.check) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:<{len(WARNING)}}  {finding.check:<{wide}}  {finding.result}")
        if finding.advice:
            lines.append(" " * (len(WARNING) + wide + 4) + f"→ {finding.advice}")
    return "\n".join(lines)
