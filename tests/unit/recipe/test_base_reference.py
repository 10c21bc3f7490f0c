import pytest
from particle_os.errors import UsageError
from particle_os.recipe import base_reference

from .written import MINIMAL, problems

DIGEST = f"sha256:{'5' * 64}"


IMAGES = [
    "docker://debian",
    "docker://r.example.org:5000/a/b-c_d.e:13-slim",
    "docker://[::1]:5000/a",
    f"docker://debian@{DIGEST}",
    "oci:layout:base",
    "oci-archive:../a.tar",
    "docker-archive:a.tar:name:tag",
]


NO_IMAGES = [
    "docker:debian",
    "docker://",
    "docker://--help",
    "docker://Debian",
    "docker://a b",
    f"docker://a:b@{DIGEST}",
    "docker://a@sha256:55",
    "docker://a@md5:55",
    "docker-daemon:a",
    "containers-storage:a",
    "dir:a",
    "oci:",
    "oci:a\nb",
]


@pytest.mark.parametrize(
    ("reference", "right"),
    [
        ("docker://Debian:13", "docker://debian:13"),
        ("docker://registry.example.org/Team/App:V1", "docker://registry.example.org/team/app:V1"),
        ("docker://r.example.org:5000/A", "docker://r.example.org:5000/a"),
    ],
)
def test_capital_letters_in_the_name_of_an_image_are_told(tmp_path, reference, right):
    with pytest.raises(UsageError, match="capital letters") as raised:
        base_reference.check_base_reference(reference)
    assert raised.value.hint == f"Write {right}."
    (problem,) = problems(tmp_path, f"base-image: {reference}\n{MINIMAL}")
    assert problem.hint == f"did you mean '{right}'?"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("edge.ostree.tar#debian/edge", "ostree:edge.ostree.tar#debian/edge"),
        ("edge.ostree.tar", None),
        ("out/edge.tar", "tar:out/edge.tar"),
    ],
)
def test_a_repository_without_its_transport_is_recognised(written, meant):
    assert base_reference.meant_base(written) == meant


def assert_accepted(text):
    base_reference.check_base_reference(text)
    with pytest.raises(UsageError):
        base_reference.check_base_reference(f"{text}\n")


@pytest.mark.parametrize(
    "text", ["mmdebstrap:trixie", "tar:../base.tar.zst", "tar:/a b.tar", *IMAGES]
)
def test_base_references_on_the_command_line(text):
    assert_accepted(text)


@pytest.mark.parametrize(
    "text",
    ["", "trixie", "mmdebstrap:", "mmdebstrap:--help", "mmdebstrap:a b", "tar:", "tar:a\nb"]
    + NO_IMAGES,
)
def test_base_references_that_are_none(text):
    with pytest.raises(UsageError, match="--base"):
        base_reference.check_base_reference(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("docker:debian:trixie-slim", "docker://debian:trixie-slim"),
        ("docker:/debian", "docker://debian"),
        ("debian:trixie", "docker://debian:trixie"),
        ("registry.example.org/base/debian", "docker://registry.example.org/base/debian"),
        ("trixie", "mmdebstrap:trixie"),
        ("mmdebstrap://trixie", "mmdebstrap:trixie"),
        ("../base.tar.zst", "tar:../base.tar.zst"),
        (f"docker://r.example.org:5000/a:13@{DIGEST}", f"docker://r.example.org:5000/a@{DIGEST}"),
        (f"debian:trixie@{DIGEST}", f"docker://debian@{DIGEST}"),
        ("docker-daemon:debian", None),
        ("debian", None),
        ("", None),
    ],
)
def test_the_base_that_was_meant_is_offered(tmp_path, text, meant):
    hint = f"did you mean '{meant}'?" if meant else None
    (problem,) = problems(tmp_path, f"{MINIMAL}base-image: '{text}'\n")
    assert problem.hint == hint or (not meant and "particle-os explain" in problem.hint)
    with pytest.raises(UsageError) as raised:
        base_reference.check_base_reference(text)
    assert raised.value.hint == hint
