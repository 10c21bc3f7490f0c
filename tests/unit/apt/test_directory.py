import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from particle_agent.contract.wire import AptProxy, AptSetting, FileContent, PackageRequest
from particle_os.apt.directory import Refused, sources_key, write

KEY = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n"
STATUS = """Package: base
Status: install ok installed
Priority: required
Maintainer: somebody <x@example.org>
Installed-Size: 12
Architecture: amd64
Version: 1:2.0~rc1-3+b1
Depends: libc6 (>= 2.38), a | b:any
Description: words
 more words
 .
 $(reboot)

Package: gone
Status: deinstall ok config-files
Version: 1
Architecture: all

"""


def file(path, text):
    return FileContent(path=path, content=base64.b64encode(text.encode()).decode())


def make(**changes):
    fields = {
        "status": file("/var/lib/dpkg/status", STATUS),
        "architectures": ("amd64", "i386"),
        "sources": (file("/etc/apt/sources.list", "deb http://m.example/debian s main\n"),),
        "preferences": (),
        "keyrings": (),
        "settings": (),
    }
    return PackageRequest(**{**fields, **changes})


@pytest.fixture
def written(tmp_path):
    def written(**changes):
        directory = tmp_path / "apt"
        write(make(**changes), directory, tmp_path / "lists")
        return directory

    return written


def sources(written, path, text, **changes):
    place = written(sources=(file(path, text),), **changes) / "etc/target.sources"
    return place.read_text()


def test_states_are_cut_to_what_apt_decides_by(written):
    text = (written() / "status").read_text()
    assert text == (
        "Package: base\nStatus: install ok installed\nPriority: required\n"
        "Installed-Size: 12\nArchitecture: amd64\nVersion: 1:2.0~rc1-3+b1\n"
        "Depends: libc6 (>= 2.38), a | b:any\n\n"
    ).replace("Installed-Size: 12\nArchitecture", "Installed-Size: 12\nArchitecture")


@pytest.mark.parametrize(
    "line",
    [
        "Version: 1 $(x)",
        "Depends: a\x00b",
        "Architecture: ../x",
        "Depends: a\x1b[31m",
        "Version: é",
    ],
)
def test_odd_states_are_refused(written, line):
    name = line.split(":")[0]
    kept = [old for old in STATUS.splitlines() if not old.startswith(f"{name}:")]
    with pytest.raises(Refused, match=name):
        written(status=file("s", "\n".join([line, *kept])))


def test_a_file_that_is_no_paragraphs_is_refused(written):
    with pytest.raises(Refused, match=r"/var/lib/dpkg/status is malformed"):
        written(status=file("/var/lib/dpkg/status", "Package: curl\nwords alone\n"))


def test_one_line_sources(written):
    text = (
        "# comment\n\ndeb-src http://m.example s main\n"
        "deb [arch=amd64,i386 signed-by=/k/a.gpg] https://m.example/x s main non-free # end\n"
        "deb http://m.example ./\n"
    )
    keyring = file("/k/a.gpg", KEY)
    found = sources(written, "/etc/apt/sources.list", text, keyrings=(keyring,))
    first, second = found.strip().split("\n\n")
    assert "Uris: https://m.example/x" in first
    assert "Components: main non-free" in first
    assert "Architectures: amd64 i386" in first
    assert first.endswith("/keyrings/0.asc")
    assert second == "Types: deb\nUris: http://m.example\nSuites: ./"


def test_deb822_sources(written):
    text = (
        "Types: deb deb-src\nURIs: http://m.example/debian\nSuites: s s-updates\n"
        "Components: main\nX-Repolib-Name: x\n\n"
        "Enabled: no\nTypes: deb\nURIs: http://off.example\nSuites: s\n"
    )
    found = sources(written, "/etc/apt/sources.list.d/x.sources", text)
    assert "Suites: s s-updates" in found
    assert "deb-src" not in found
    assert "off.example" not in found


@pytest.mark.parametrize(
    "line",
    [
        "deb file:/etc s main",
        "deb copy:/etc ./",
        "deb cdrom:[x]/ s main",
        "deb http://m.example;x s main",
        "deb [signed-by=/etc/passwd] http://m.example s main",
        "deb [allow-insecure=yes] http://m.example s main",
        "deb [trusted=perhaps] http://m.example s main",
        "deb mirror+file:/etc/x s main",
        "debian http://m.example s main",
    ],
)
def test_sources_that_are_not_understood_are_refused(written, line):
    with pytest.raises(Refused):
        sources(written, "/etc/apt/sources.list", line + "\n")


# The fields of a request that a text of the guest gets into.
FIELDS = {
    "status": lambda text: file("s", STATUS.replace("1:2.0~rc1-3+b1", f"1{text}")),
    "sources": lambda text: (
        file("/etc/apt/sources.list", f"deb http://m.example/{text} s main\n"),
    ),
    "preferences": lambda text: (file("p", f"Package: *\nPin: release {text}\nPin-Priority: 1\n"),),
    "settings": lambda text: (AptSetting(key="APT::Default-Release", value=text),),
}
PLAIN = st.text("ab01.", min_size=1, max_size=9)


@pytest.mark.slow
@pytest.mark.parametrize("field", FIELDS)
@given(before=PLAIN, odd=st.just("") | st.sampled_from('\n\r\0"; \u2028') | st.text(), after=PLAIN)
def test_no_text_of_the_guest_makes_another_line(tmp_path_factory, field, before, odd, after):
    """A plain text is accepted. Any other text is refused, or stays the value of its field."""
    directory = tmp_path_factory.mktemp("apt")
    request = make(**{field: FIELDS[field](before + odd + after)})
    try:
        write(request, directory / "apt", directory / "lists")
    except Refused:
        assert odd
    else:
        assert_fields_kept(directory)


def assert_fields_kept(directory):
    allowed = {"Package", "Status", "Priority", "Installed-Size", "Architecture", "Version"}
    allowed |= {"Depends", "Types", "Uris", "Suites", "Components", "Pin", "Pin-Priority"}
    for name in ("status", "etc/target.sources", "etc/preferences"):
        for line in (directory / "apt" / name).read_text().split("\n"):
            assert not line or line.partition(": ")[0] in allowed
            assert line.isprintable()
    config = (directory / "apt/apt.conf").read_text().split("\n")
    assert [line.count('"') for line in config] == [2] * (len(config) - 1) + [0]


def test_a_setting_cannot_end_its_quotes(written):
    with pytest.raises(Refused):
        written(settings=(AptSetting(key="Acquire::http::Proxy", value='x"; DPkg::x "y'),))


@pytest.mark.parametrize(
    "key", ["APT::Update::Pre-Invoke::", "Dir::Bin::Methods", "Acquire::http::Proxy-Auto-Detect"]
)
def test_a_setting_that_can_run_a_program_is_refused(written, key):
    with pytest.raises(Refused, match="the target sets"):
        written(settings=(AptSetting(key=key, value="/bin/sh"),))


def test_keys_are_trusted_as_far_as_the_target_trusts_them(written):
    trusted = file("/etc/apt/trusted.gpg.d/a.asc", KEY)
    directory = written(keyrings=(trusted, file("/usr/share/keyrings/b.gpg", "binary")))
    assert [p.name for p in (directory / "trusted.gpg.d").iterdir()] == ["0.asc"]
    assert [p.name for p in (directory / "keyrings").iterdir()] == ["1.gpg"]


def test_the_architecture_of_the_image_is_the_native_one_of_apt(tmp_path):
    for request, expected in (
        (make(architectures=()), ["arm64"]),
        (make(architectures=("arm64", "amd64")), ["arm64", "amd64"]),
    ):
        config = write(request, tmp_path / "a", tmp_path / "lists", None, "arm64").read_text()
        assert f'APT::Architecture "{expected[0]}";' in config
        assert re.findall(r'APT::Architectures:: "(.*)";', config) == expected
    alone = make(architectures=())
    assert sources_key(alone, "arm64") != sources_key(alone, "amd64")


def test_indexes_are_kept_apart_by_what_they_were_checked_with():
    other_key = make(keyrings=(file("/etc/apt/trusted.gpg.d/a.asc", KEY),))
    other_source = make(sources=(file("/etc/apt/sources.list", "deb http://n.example s main\n"),))
    other_packages = make(status=file("s", ""))
    other_architectures = make(architectures=("amd64", "armhf"))
    keys = {sources_key(r) for r in (make(), other_key, other_source, other_architectures)}
    assert len(keys) == 4
    assert sources_key(other_packages) in keys


ARMORED = f"{KEY}\nmQ==\n=abcd\n-----END PGP PUBLIC KEY BLOCK-----\n"
INLINE = "".join(f" {line or '.'}\n" for line in ARMORED.splitlines())


def deb822(*fields):
    return "Types: deb\nURIs: http://m.example/debian\nSuites: s\nComponents: main\n" + "".join(
        f"{field}\n" for field in fields
    )


def test_a_key_within_a_source_becomes_a_keyring(written):
    text = deb822(f"Signed-By:\n{INLINE}".rstrip(), "Check-Valid-Until: no")
    found = sources(written, "/etc/apt/sources.list.d/x.sources", text)
    (place,) = [line.split(" ")[1] for line in found.splitlines() if line.startswith("Signed-By")]
    with open(place) as file:  # noqa: PTH123
        assert file.read() == ARMORED
    assert "Check-Valid-Until: no" in found


@pytest.mark.parametrize("odd", ["é", "\x00", "-----END"])
def test_an_odd_key_is_refused(written, odd):
    text = deb822(f"Signed-By:\n{INLINE.replace('mQ==', odd)}".rstrip())
    text = text.replace("-----END PGP PUBLIC KEY BLOCK-----", "x") if odd == "-----END" else text
    with pytest.raises(Refused, match="key"):
        sources(written, "/etc/apt/sources.list.d/x.sources", text)


def test_several_keyrings_and_several_mirrors(written):
    keyrings = (file("/k/a.gpg", "a"), file("/k/b.asc", KEY))
    text = deb822("Signed-By: /k/a.gpg /k/b.asc").replace("debian", "debian https://n.example/d")
    found = sources(written, "/etc/apt/sources.list.d/x.sources", text, keyrings=keyrings)
    assert "Uris: http://m.example/debian https://n.example/d\n" in found
    assert found.rstrip().endswith("/keyrings/1.asc")
    assert "/keyrings/0.gpg " in found
    with pytest.raises(Refused, match=r"/k/c\.gpg"):
        sources(
            written,
            "/etc/apt/sources.list.d/x.sources",
            text.replace("/k/b.asc", "/k/c.gpg"),
            keyrings=keyrings,
        )


def test_the_hosts_loopback_has_another_name_in_the_vm(written):
    text = (
        "deb http://10.0.2.2:8080/x s main\ndeb http://10.0.2.20/ s main\ndeb http://10.0.2.2 ./\n"
    )
    found = sources(written, "/etc/apt/sources.list", text)
    uris = [line.split(" ")[1] for line in found.splitlines() if line.startswith("Uris")]
    assert uris == ["http://127.0.0.1:8080/x", "http://10.0.2.20/", "http://127.0.0.1"]
    pins = file("/etc/apt/preferences", 'Package: *\nPin: origin "10.0.2.2"\nPin-Priority: 1\n')
    with pytest.raises(Refused, match="loopback"):
        sources(written, "/etc/apt/sources.list", text, preferences=(pins,))


def test_sources_and_settings_for_a_proxy(tmp_path):
    proxy = AptProxy(url="http://127.0.0.1:3142", https="rewrite", caches=True)
    https = file("/etc/apt/sources.list", "deb https://m.example/debian s main\n")
    request = make(
        sources=(https,),
        settings=(AptSetting(key="Acquire::http::Proxy", value="http://of.the.image:1"),),
    )
    config = write(request, tmp_path / "a", tmp_path / "lists", proxy)
    assert (
        "Uris: http://HTTPS///m.example/debian\n" in (tmp_path / "a/etc/target.sources").read_text()
    )
    lines = config.read_text().splitlines()
    assert [line for line in lines if line.startswith("Acquire::http::Proxy ")] == [
        'Acquire::http::Proxy "http://127.0.0.1:3142";'
    ]
    pins = file("/etc/apt/preferences", 'Package: *\nPin: origin "m.example"\nPin-Priority: 1\n')
    request = make(sources=(https,), preferences=(pins,))
    write(request, tmp_path / "b", tmp_path / "lists", proxy)
    assert "Uris: https://m.example/debian\n" in (tmp_path / "b/etc/target.sources").read_text()


@pytest.mark.parametrize("content", ["ä", "a", "/w==", "YQ==!"])
def test_a_file_that_is_no_base64_of_text_is_refused(written, content):
    with pytest.raises(Refused, match="is not UTF-8 text"):
        written(status=FileContent(path="/var/lib/dpkg/status", content=content))


@pytest.mark.parametrize("content", ["ä", "a", "YQ==!", "Y Q=="])
def test_a_keyring_that_is_no_base64_is_refused(written, content):
    with pytest.raises(Refused, match="is not a keyring"):
        written(keyrings=(FileContent(path="/etc/apt/keyrings/a.gpg", content=content),))
