"""The words of `vmpack lab`, without guests."""

from __future__ import annotations

import pytest

from vmpack.cli.main import main


@pytest.mark.parametrize("verb", ["up", "list", "uri", "exec", "load", "down"])
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The help is how people learn the lab."""
    with pytest.raises(SystemExit) as caught:
        main(["lab", verb, "--help"])

    assert caught.value.code == 0
    assert f"vmpack lab {verb}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["load", "g1", "--rate", "1MiB/s"], "belong to --memory"),
        (["exec", "g1"], "no command given"),
        (["up", "--memory", "32MiB"], "too little"),
        (["list", "--name", "../x"], "no name for a lab"),
        (["uri", "--name", "never-up"], "is running"),
    ],
)
def test_mistakes_get_one_line_and_a_way_out(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong word must cost seconds, not a traceback."""
    code = main(["lab", *arguments])
    lines = capsys.readouterr().err.splitlines()

    assert code in (2, 69)
    assert says in lines[0]
    assert lines[1].startswith("  ")


@pytest.mark.parametrize(
    "arguments", [["up", "--guests", "0"], ["up", "--memory", "much"], ["load", "g1", "--rate", "1/min"]]
)
def test_wrong_amounts_are_refused_before_anything_starts(arguments: list[str]) -> None:
    """`--guests 0` or a typing error must not start a daemon."""
    with pytest.raises(SystemExit) as caught:
        main(["lab", *arguments])

    assert caught.value.code == 2
