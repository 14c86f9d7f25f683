"""What the doctor's checks give: diagnoses, and their table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vggrepro.errors import InputError

OK, WARNING, BROKEN = "ok", "warning", "broken"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A row: ok, warning or broken; what was checked; what was found; what to do."""

    state: str
    check: str
    result: str
    advice: str = ""


def guarded(name: str, check: Callable[[], Diagnosis | list[Diagnosis]]) -> list[Diagnosis]:
    """A check's diagnoses; its failure is one of them."""
    try:
        found = check()
    except InputError as error:
        return [Diagnosis(BROKEN, name, str(error))]
    except Exception as error:  # whatever a broken installation or file throws
        line = (str(error).strip() or "no message").splitlines()[0]
        return [Diagnosis(BROKEN, name, f"the check failed: {type(error).__name__}: {line}", "see the result")]
    return found if isinstance(found, list) else [found]


def rows(diagnoses: Sequence[Diagnosis]) -> list[tuple[str, str, str]]:
    """State, check and result of each, and below the result what to do."""
    result = []
    for each in diagnoses:
        result.append((each.state, each.check, each.result))
        if each.advice:
            result.append(("", "", f"→ {each.advice}"))
    return result


def table(diagnoses: Sequence[Diagnosis]) -> str:
    """The rows as text in columns."""
    wide = max(len(diagnosis.check) for diagnosis in diagnoses)
    return "\n".join(f"{state:<{len(WARNING)}}  {check:<{wide}}  {text}" for state, check, text in rows(diagnoses))
