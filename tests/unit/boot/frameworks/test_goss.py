import json

import pytest
from particle_os.boot.frameworks import goss
from particle_os.boot.frameworks.image_shell import ImageShell, Ran

from ....waiting import plenty
from .conftest import machine

# As goss 0.4.9 prints it, the package of Debian 13.
RESULT = {
    "duration": 2880, "end-time": "2026-11-29T13:58:12.724327671Z", "err": None,
    "matcher-result": {
        "actual": True, "expected": True, "extra-elements": None, "found-elements": None,
        "message": "matches expectation", "missing-elements": None, "transform-chain": None,
        "untransformed-value": None,
    },
    "meta": None, "property": "exists", "resource-id": "/etc/passwd", "resource-type": "File",
    "result": 0, "skipped": False, "start-time": "2026-11-29T13:58:12.724324792Z",
    "successful": True, "summary-line": "File: /etc/passwd: exists: matches expectation: true",
    "summary-line-compact": "File: /etc/passwd: exists: matches expectation: true", "title": "",
}  # fmt: skip


def document(*changes, **summary):
    results = [RESULT | change for change in changes]
    counts = {"failed-count": 0, "test-count": len(results), "total-duration": 99} | summary
    return {"results": results, "summary": counts}


def read(found, status=0):
    text = found if isinstance(found, bytes) else json.dumps(found).encode()
    return [(check.name, check.passed, check.detail) for check in goss.read(Ran(status, text, b""))]


PROGRAM = """\
#!/bin/sh
# Stands for goss: it tests whether the files exist that the goss file names in its lines.
[ "$1 $3 $4 $5" = "--gossfile validate --format json" ] || exit 64
number=0 failed=0
printf '{"results": ['
while read -r file; do
	[ "$number" = 0 ] || printf ,
	number=$((number + 1)) found=true
	[ -e "$file" ] || found=false failed=1
	printf '{"resource-type": "File", "resource-id": "%s", "property": "exists", ' "$file"
	printf '"successful": %s, "summary-line": "exists: %s"}' "$found" "$found"
done <"$2"
printf '], "summary": {"test-count": %s}}\\n' "$number"
exit $failed
"""


@pytest.fixture
def with_goss(probe, tmp_path):
    """The shell of an image that has a stand-in for goss."""
    program = tmp_path / "goss"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    return ImageShell(machine(), probe(PATH=f"{tmp_path}:/usr/bin:/bin"), 1.0)


def test_each_test_of_the_file_is_a_check(with_goss, tmp_path):
    file = f"/etc/passwd\n/no/such $(touch {tmp_path}/touched)\n".encode()
    found = list(goss.results(file, with_goss, plenty()))
    assert [check.passed for check in found] == [True, False]
    assert found[0].name == "goss File /etc/passwd exists"
    assert found[1].detail == "exists: false"
    assert not (tmp_path / "touched").exists()


def test_an_image_without_goss_is_told_where_to_get_it(probe):
    shell = ImageShell(machine(), probe(PATH="/usr/bin:/bin"), 1.0)
    (check,) = goss.results(b"file: {}\n", shell, plenty())
    assert (check.name, check.passed) == ("goss", False)
    assert "no program 'goss'" in check.detail
    assert "download:" in check.detail


def test_a_skipped_test_does_not_fail_and_says_so():
    failed = {"successful": False, "summary-line": "File: /x: exists:\nExpected\n    false"}
    skipped = {"skipped": True, "summary-line": "File: /etc/passwd: mode: skipped"}
    assert [check[1:] for check in read(document({}, failed, skipped), 1)] == [
        (True, "File: /etc/passwd: exists: matches expectation: true"),
        (False, "File: /x: exists: / Expected /     false"),
        (True, "skipped: File: /etc/passwd: mode: skipped"),
    ]


def test_the_results_have_an_order():
    one, two, three = ({"resource-id": name, "property": "mode"} for name in ("/a", "/b", "/c"))
    mixed = [three, {"resource-type": "User"}, one, two, one | {"property": "exists"}]
    assert [name for name, _, _ in read(document(*mixed))] == [
        "goss File /a mode", "goss File /a exists", "goss File /b mode", "goss File /c mode",
        "goss User /etc/passwd exists",
    ]  # fmt: skip


def test_text_of_the_image_plays_no_tricks():
    ((name, _, detail),) = read(document({"resource-id": "\x1b[2J", "summary-line": "##[error]x"}))
    assert (name, detail) == ("goss File \\x1b[2J exists", "#\\x23[error]x")


@pytest.mark.parametrize(
    ("found", "status", "words"),
    [
        (b"Error: could not read goss.yaml", 1, "it ended with 1, without results: Error: could"),
        (b"", 0, "without results: no output"),
        (b"[" * 100_000, 0, "without results"),
        (json.dumps(document({})).encode()[:-5], 0, "without results"),
        (document({"successful": "yes"}), 0, "without results"),
        (document(), 0, "the file has no test"),
        (document({}, **{"test-count": 2}), 0, "1 of 2 results arrived"),
        (document({}), 1, "it ended with 1, but no test failed"),
        (document(*[{}] * 1001), 0, "1001 results, more than 1000"),
    ],
)
def test_what_goss_cannot_have_meant_is_a_failure(found, status, words):
    checks = read(found, status)
    assert checks[-1][0:2] == ("goss", False)
    assert words in checks[-1][2]
    assert len(checks) <= 1001
