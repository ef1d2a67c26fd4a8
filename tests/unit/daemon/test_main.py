from __future__ import annotations

import pytest

from finetuned.__main__ import _report
from finetuned.domain.errors import StartError
from finetuned_events import LogBrokenError


def test_an_error_of_ours_ends_in_its_sentence_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    error = ExceptionGroup("tasks", [ExceptionGroup("inner", [StartError("The port is taken; free it.")])])
    assert _report(error) == 69
    assert capsys.readouterr().err == "finetuned: The port is taken; free it.\n"


def test_a_broken_log_has_an_exit_code_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert _report(ExceptionGroup("tasks", [LogBrokenError(), LogBrokenError()])) == 74
    assert capsys.readouterr().err.startswith("finetuned: ")


def test_ctrl_c_during_the_start_shows_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert _report(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == ""


def test_a_defect_is_raised_again() -> None:
    with pytest.raises(ZeroDivisionError):
        _report(ZeroDivisionError())
