"""The configuration: every key is read, refused and explained."""

import dataclasses
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from vmpack import config
from vmpack.config_keys import Key, keys
from vmpack.errors import UsageError
from vmpack.model.settings import GpuSettings, GrantSettings, Settings, VcpuSettings

ALL = keys()
IN_SETTINGS = {section.name for section in fields(Settings)}
RANGED = [key for key in ALL if key.low is not None]


def other_value(key: Key) -> object:
    """A valid value that is not the default."""
    match key.kind:
        case "flag":
            return not key.default
        case "path":
            return "/somewhere/else"
        case "gpus":
            return "0,3b:00.0"
        case "cpus":
            return "0-1,8"
        case "text":
            return next((choice for choice in key.choices if choice != key.default), "something")
    assert key.low is not None and key.high is not None
    default = key.default if isinstance(key.default, int | float) else key.low
    if key.kind in ("bytes", "count", "days"):
        return int(default) + 1 if default < key.high else int(default) - 1
    return (float(default) + (key.high if default < key.high else key.low)) / 2


def write(directory: Path, text: str, name: str = "vmpack.toml") -> Path:
    """A configuration file with this text."""
    path = directory / name
    path.write_text(text)
    return path


def one_key(key: Key, literal: str) -> str:
    """A file's text that sets this key alone."""
    return f"[{key.table}]\n{key.field} = {literal}\n"


def literal(value: object) -> str:
    """The value in TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else repr(value)


def value_of(read: config.Config, key: Key) -> object:
    """What the configuration says for this key."""
    parts = {"grant": read.grant, "opennebula": read.opennebula, "gpu": read.gpu, "vcpu": read.vcpu}
    holders = {**parts, **{name: getattr(read.settings, name) for name in IN_SETTINGS}}
    return getattr(holders.get(key.table, read), key.field)


def partners(key: Key, value: object) -> dict[str, object]:
    """Other keys that must move along for this one to be legal."""
    moves = {
        "memory.scarcity_intervals": {"memory.scarcity_window": 100},
        "memory.silence_s": {"memory.silence_nominal_s": 86400.0},
        "publish.journal_segment_bytes": {"publish.journal_cap_bytes": 1 << 38},
    }
    return moves.get(key.name, {})


@pytest.mark.parametrize("key", ALL, ids=lambda key: key.name)
def test_each_key_reaches_its_field(key: Key, tmp_path: Path) -> None:
    """A key in the file that changes nothing would leave administrators believing in a setting."""
    value = other_value(key)
    tables: dict[str, list[str]] = {key.table: [f"{key.field} = {literal(value)}"]}
    for name, needed in partners(key, value).items():
        table, _, field = name.partition(".")
        tables.setdefault(table, []).append(f"{field} = {literal(needed)}")
    text = "".join(f"[{table}]\n" + "\n".join(lines) + "\n" for table, lines in tables.items())

    read = config.load([write(tmp_path, text)])

    assert str(value_of(read, key)) == str(value) or value_of(read, key) == value
    assert value_of(read, key) != value_of(config.load([]), key)


@pytest.mark.parametrize("key", RANGED, ids=lambda key: key.name)
@pytest.mark.parametrize("beyond", ["under", "over"])
def test_each_key_refuses_values_out_of_range(key: Key, beyond: str, tmp_path: Path) -> None:
    """A value out of range must be one line with file, key, found and the range, not a surprise at night."""
    assert key.low is not None and key.high is not None
    bad = int(key.low) - 1 if beyond == "under" else int(key.high) + 1
    path = write(tmp_path, one_key(key, str(bad)))

    with pytest.raises(config.ConfigMistakes) as caught:
        config.load([path])

    assert len(caught.value.mistakes) == 1
    line = caught.value.mistakes[0]
    assert line.startswith(f"{path}: {key.name}: found {bad}")
    assert key.shown(key.high) in line and key.unit in line and "\n" not in line


@pytest.mark.parametrize("key", ALL, ids=lambda key: key.name)
def test_each_key_refuses_the_wrong_type(key: Key, tmp_path: Path) -> None:
    """A list, a flag for a number or a number for a flag must be said in one line, never converted."""
    for bad in ("[1]", "1" if key.kind in ("flag", "text", "path") else "true", "nan"):
        with pytest.raises(config.ConfigMistakes) as caught:
            config.load([write(tmp_path, one_key(key, bad))])

        assert len(caught.value.mistakes) == 1
        assert f": {key.name}: found" in caught.value.mistakes[0]
        assert "expected" in caught.value.mistakes[0]


def test_the_table_and_the_records_name_the_same_things() -> None:
    """A setting without a key could not be set; a key without a setting would do nothing."""
    named = {(key.table, key.field) for key in ALL}
    settings = Settings()
    in_settings = {
        (section.name, field.name)
        for section in fields(settings)
        for field in fields(getattr(settings, section.name))
    }
    parts = {
        "grant": GrantSettings,
        "opennebula": config.OpenNebulaAccess,
        "gpu": GpuSettings,
        "vcpu": VcpuSettings,
    }
    in_settings |= {(name, field.name) for name, part in parts.items() for field in fields(part)}
    outside = {field.name for field in fields(config.Config)} - {"settings", *parts, "files"}

    assert in_settings == {pair for pair in named if pair[0] in {*IN_SETTINGS, *parts}}
    assert outside == {field for table, field in named if table not in {*IN_SETTINGS, *parts}}
    assert all(key.meaning.endswith(".") and "\n" not in key.meaning for key in ALL)


def test_defaults_are_those_of_the_model() -> None:
    """Without a file the agent must decide exactly as the documented defaults say."""
    assert config.load([]).settings == Settings()


def test_amounts_can_be_written_with_units(tmp_path: Path) -> None:
    """Administrators write "80MiB" and "2min"; a silent factor of 1024 would ruin a host."""
    read = config.load(
        [write(tmp_path, '[memory]\nfloor_min_bytes = "96MiB"\ncalm_s = "2min"\ninterval_s = "500ms"\n')]
    )

    assert read.settings.memory.floor_min_bytes == 96 * 2**20
    assert read.settings.memory.calm_s == 120
    assert read.settings.memory.interval_s == 0.5


def test_every_mistake_is_listed_at_once(tmp_path: Path) -> None:
    """Whoever fixes a file should not have to run the check once per mistake."""
    path = write(
        tmp_path,
        'nonsense = 1\n[memory]\nfloor_ration = 0.2\nshares = "many"\ncalm_s = -1\n'
        "[publish]\nhistory_days = 0\n",
    )

    with pytest.raises(config.ConfigMistakes) as caught:
        config.load([path])

    assert [line.split(": ")[1] for line in caught.value.mistakes] == [
        "nonsense", "memory.floor_ration", "memory.shares", "memory.calm_s", "publish.history_days",
    ]  # fmt: skip
    assert "did you mean memory.floor_ratio?" in caught.value.mistakes[1]
    assert caught.value.exit_code == 78
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("[memory]\ninterval = 3\n", "memory.interval_s"),
        ("[hosts]\nreserve_ratio = 0.1\n", "host.reserve_ratio"),
        ("[agent]\nfloor_ratio = 0.1\n", "memory.floor_ratio"),
    ],
)
def test_a_misspelt_key_is_recognised(text: str, meant: str, tmp_path: Path) -> None:
    """A typing error must name the key that was meant, also when only its table is wrong."""
    with pytest.raises(config.ConfigMistakes) as caught:
        config.load([write(tmp_path, text)])

    assert f"did you mean {meant}?" in caught.value.mistakes[0]


@pytest.mark.parametrize("broken", ["[memory\n", "[memory]\ncalm_s = \n", "\xff\xfe"])
def test_a_file_that_is_not_toml_is_one_clear_line(broken: str, tmp_path: Path) -> None:
    """A half-saved file must not crash the agent with a traceback."""
    path = tmp_path / "vmpack.toml"
    path.write_bytes(broken.encode("latin-1"))

    with pytest.raises(config.ConfigMistakes) as caught:
        config.load([path])

    assert caught.value.mistakes[0].startswith(f"{path}: not valid TOML")


def test_a_missing_named_file_is_said(tmp_path: Path) -> None:
    """A misspelt --config must not silently mean the defaults."""
    with pytest.raises(config.ConfigMistakes, match="cannot be read: No such file"):
        config.load([tmp_path / "none.toml"])


def test_later_files_win(tmp_path: Path) -> None:
    """conf.d lets a tool override one key without touching the administrator's file."""
    first = write(tmp_path, "[memory]\nshares = 10\ncalm_s = 50\n", "a.toml")
    second = write(tmp_path, "[memory]\nshares = 20\n", "b.toml")

    read = config.load([first, second])

    assert (read.settings.memory.shares, read.settings.memory.calm_s) == (20, 50)
    assert read.files == (first, second)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[memory]\nscarcity_window = 2\n", "memory.scarcity_window: found 2"),
        ("[memory]\nsilence_s = 60\n", "memory.silence_nominal_s: found 30 s"),
        ('[publish]\njournal_cap_bytes = "20MiB"\n', "publish.journal_cap_bytes: found 20 MiB"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(text: str, found: str, tmp_path: Path) -> None:
    """Two values that are fine alone can switch a protection off together."""
    with pytest.raises(config.ConfigMistakes) as caught:
        config.load([write(tmp_path, text)])

    assert len(caught.value.mistakes) == 1
    assert found in caught.value.mistakes[0] and str(tmp_path) in caught.value.mistakes[0]


def test_the_default_file_is_valid_with_and_without_its_comments(tmp_path: Path) -> None:
    """The file that the installation writes must load, and so must each line once its # is removed."""
    text = config.default_text()
    shown = "\n".join(
        line[1:] if line.startswith("#") and not line.startswith("# ") else line for line in text.splitlines()
    )

    assert config.load([write(tmp_path, text)]).settings == Settings()
    assert {f"{table}.{key}" for table, entries in tomllib.loads(shown).items() for key in entries} == {
        key.name for key in ALL
    }
    with_all = config.load([write(tmp_path, shown)])
    examples = {"headroom_ratio": 0.2, "headroom_min_bytes": 64 * 2**20}
    assert with_all.settings.memory == dataclasses.replace(Settings().memory, **examples)
    assert with_all.settings.host.memory_bytes == 64 * 2**30


def test_explanations_show_every_key_and_what_was_changed(tmp_path: Path) -> None:
    """`check-config --explain` is the reference; a key missing there cannot be found."""
    read = config.load([write(tmp_path, "[memory]\nshares = 77\n")])

    text = "\n".join(config.explain_lines(read))

    assert all(f"{key.name} = " in text and key.meaning in text for key in ALL)
    assert "memory.shares = 77 (default 1000)" in text
    assert [record["name"] for record in config.explain_records()] == [key.name for key in ALL]
    assert config.markdown_table().count("\n") == len(ALL) + 2


def test_the_command_line_overrides_within_the_same_ranges(tmp_path: Path) -> None:
    """`memory_coordinator 2` must win over the file; a senseless interval must be refused the same way."""
    read = config.load([])

    changed = config.override(read, {"memory.interval_s": 2.0, "agent.run_dir": None})

    assert changed.settings.memory.interval_s == 2.0
    assert changed.run_dir == read.run_dir
    with pytest.raises(UsageError, match=r"memory\.interval_s: found 0, out of range"):
        config.override(read, {"memory.interval_s": 0})


def test_a_reload_knows_what_it_cannot_change() -> None:
    """After SIGHUP the administrator must hear that a new socket path needs a restart."""
    before = config.load([])
    changes = {"agent.run_dir": "/elsewhere", "memory.shares": 5, "agent.observe_only": True}
    after = config.override(before, changes)

    assert config.needs_restart(before, after) == ("agent.run_dir",)


def test_ordinary_users_have_their_own_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without root the agent must not read or write root's paths."""
    monkeypatch.setattr("os.geteuid", lambda: 4711)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    (tmp_path / "vmpack" / "conf.d").mkdir(parents=True)
    files = [tmp_path / "vmpack" / name for name in ("vmpack.toml", "conf.d/10.toml", "conf.d/20.toml")]
    for path in reversed(files):
        path.write_text("")

    read = config.load()

    assert read.files == tuple(files)
    assert read.run_dir == Path("/tmp/vmpack-4711")
    assert read.state_dir == tmp_path / "state" / "vmpack"


def test_commands_for_the_cloud_know_the_hosts_own_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What an administrator sets on the front-end would not reach the commands, which oneadmin runs."""
    monkeypatch.setattr("os.geteuid", lambda: 4711)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "own"))
    monkeypatch.setattr(config, "HOST_DIRECTORY", tmp_path / "host")
    files = [tmp_path / "host" / "vmpack.toml", tmp_path / "own" / "vmpack" / "vmpack.toml"]
    for path in files:
        path.parent.mkdir(parents=True)
    files[0].write_text("")
    assert config.default_files() == ()
    assert config.cloud_files() == (files[0],)
    files[1].write_text("")
    assert config.cloud_files() == (files[1],)
