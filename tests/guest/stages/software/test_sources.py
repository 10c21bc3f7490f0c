import pytest
from particle_agent.contract.decode import DecodeError, decode
from particle_agent.errors import StageError
from particle_agent.stages.software.sources import Repository, Sources

KEY = """\
-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEaQAAABYJKwYBBAHaRw8BAQdAAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBka
GxwdHh8=
-----END PGP PUBLIC KEY BLOCK-----
"""
DEBIAN = {"name": "debian", "mirrors": ("http://m.example/debian",), "suites": ("s", "s-updates")}
LISTS = "/etc/apt/sources.list.d"


@pytest.fixture
def debian(target):
    target.write("/etc/apt/sources.list", "deb http://old.example s main\n")
    target.write(f"{LISTS}/old.list", "deb http://old.example s main\n")
    target.write(f"{LISTS}/old.sources", "Types: deb\n")
    target.write(f"{LISTS}/README", "not one that apt reads")
    return target


def write(target, *, snapshot=None, replace=False, **repository):
    one = Repository(**{**DEBIAN, **repository})
    options = {"replace": True} if replace else {}
    Sources(repositories=(one,), snapshot=snapshot, **options).run(target)
    return target.read(f"{LISTS}/{one.name}.sources").splitlines()


def test_a_repository_becomes_a_file_of_sources(debian):
    assert write(debian, architectures=("amd64", "i386"), components=("main", "contrib")) == [
        "Types: deb",
        "URIs: http://m.example/debian",
        "Suites: s s-updates",
        "Components: main contrib",
        "Architectures: amd64 i386",
    ]


def test_what_the_image_had_stays_unless_it_is_replaced(debian):
    write(debian)
    assert debian.exists("/etc/apt/sources.list")
    assert debian.list(LISTS) == ["README", "debian.sources", "old.list", "old.sources"]
    write(debian, replace=True)
    assert not debian.exists("/etc/apt/sources.list")
    assert debian.list(LISTS) == ["README", "debian.sources"]


def test_sources_can_just_be_removed(debian):
    Sources(replace=True).run(debian)
    assert debian.list(LISTS) == ["README"]


def test_a_key_is_believed_for_its_repository_alone(debian):
    lines = write(debian, key=KEY)
    assert lines[-1] == "Signed-By: /etc/apt/keyrings/debian.asc"
    assert debian.read("/etc/apt/keyrings/debian.asc") == KEY
    assert debian.list("/etc/apt/trusted.gpg.d") == []


@pytest.mark.parametrize(("data", "ending"), [(KEY.encode(), "asc"), (b"\x98\x33binary", "gpg")])
def test_the_format_of_a_key_file_is_found_out(debian, tmp_path, data, ending):
    debian.attachments = tmp_path
    (tmp_path / "0123").write_bytes(data)
    debian.write("/etc/apt/keyrings/debian.asc", "of an earlier stage")
    lines = write(debian, key_file="sha256:0123")
    assert lines[-1] == f"Signed-By: /etc/apt/keyrings/debian.{ending}"
    assert debian.list("/etc/apt/keyrings") == [f"debian.{ending}"]
    assert debian.read_bytes(f"/etc/apt/keyrings/debian.{ending}") == data


def test_a_keyring_of_the_image_must_be_there(debian):
    with pytest.raises(StageError, match=r"no /usr/share/keyrings/d\.gpg in the image") as raised:
        write(debian, keyring="/usr/share/keyrings/d.gpg")
    assert "package that brings it" in raised.value.hint
    debian.write("/usr/share/keyrings/d.gpg", "")
    assert write(debian, keyring="/usr/share/keyrings/d.gpg")[-1] == (
        "Signed-By: /usr/share/keyrings/d.gpg"
    )


def test_a_snapshot_is_a_date_in_the_mirror_and_may_have_expired(debian):
    mirrors = ("https://snapshot.example/archive/debian/{date}",)
    lines = write(debian, mirrors=mirrors, snapshot="20260131T000000Z")
    assert lines[1] == "URIs: https://snapshot.example/archive/debian/20260131T000000Z"
    assert "Check-Valid-Until: no" in lines
    assert "Check-Valid-Until: no" not in write(debian)


def test_a_repository_without_suites_has_no_components(debian):
    lines = write(debian, suites=("./",))
    assert lines == ["Types: deb", "URIs: http://m.example/debian", "Suites: ./"]


def test_a_base_without_apt_is_reported(target):
    with pytest.raises(StageError, match="no apt") as raised:
        write(target)
    assert "contains the 'apt' package" in raised.value.hint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": KEY, "keyring": "/k.gpg"}, "one of 'key'"),
        ({"suites": ("s", "./")}, "end with '/'"),
        ({"mirrors": ("http://m.example/{date}",)}, "'snapshot' is needed"),
        ({"snapshot": "20260131T000000Z"}, "of no use"),
    ],
)
def test_what_does_not_go_together_is_reported_beforehand(debian, change, message):
    with pytest.raises(ValueError, match=message):
        write(debian, **change)


def test_two_repositories_of_one_name_are_reported_beforehand():
    one = Repository(**DEBIAN)
    with pytest.raises(ValueError, match="repository 'debian' is there twice"):
        Sources(repositories=(one, one))
    with pytest.raises(ValueError, match="nothing to do"):
        Sources()


@pytest.mark.parametrize(
    "change",
    [
        {"mirrors": ["file:/etc"]},
        {"mirrors": ["http://user:password@m.example/"]},
        {"mirrors": ["http://m.example/ x"]},
        {"mirrors": ["http://m.example/\nTrusted: yes"]},
        {"suites": ["s\nTrusted: yes"]},
        {"suites": []},
        {"components": ["main contrib"]},
        {"name": "../x"},
        {"key": "not a key"},
        {"key": KEY + "Trusted: yes\n"},
        {"keyring": "/etc/passwd"},
    ],
)
def test_no_value_makes_another_field(change):
    good = {"name": "x", "mirrors": ["http://m.example/"], "suites": ["s"]}
    decode(Repository, good)
    with pytest.raises(DecodeError):
        decode(Repository, {**good, **change})
