"""Results and verdicts for tests of reports, and a reader of the page."""

from html.parser import HTMLParser

from particle_agent.contract.inspection import Package
from particle_os.boot.observation.verdict import CheckResult, Verdict
from particle_os.egress.record import HostReached, HostRefused, Hosts
from particle_os.errors import StageFailed
from particle_os.records import AptProxyResult
from particle_os.report import page
from particle_os.report.results import (
    ArtifactResult,
    CommitResult,
    FilesResult,
    HelperResult,
    PackageResult,
    Result,
    StageResult,
)
from particle_os.sandbox.verification import FindingResult, Verification
from particle_os.vm.traffic import Reached, Traffic

HOSTILE = (
    "</pre></title></style><script>alert(1)</script>\"' onload=alert(1) x='"
    "<img src=http://example.org/x onerror=alert(1)>&#60;{{ 7 * 7 }}{% raw %}\x1b[31m\x00\u202e"
)
HARMLESS = "a word"
PICTURE = page.BEGINNINGS["png"] + bytes(range(256))
VOID = {"meta", "img", "rect", "br", "link", "input"}


def verdict(text, status="units-failed", firmware="bios"):
    return Verdict(
        status=status,
        firmware=firmware,
        seconds=12.5,
        message=text,
        phases={"firmware": 0.5, "kernel": 2.0, text: 7.0},
        checks=(
            CheckResult(name=text, passed=True, detail=text),
            CheckResult(name=text, passed=False, detail=text),
        ),
        facts={
            **dict.fromkeys(page.FACTS, f"{text}\n{text}"),
            "failed": text,
            f"journal:{text}": f"{text}\n{text}",
        },
        console_tail=(text, text),
    )


def traffic(text, **changes):
    reached = Reached(protocol=text, address=text, port=443, sent=2048, received=1 << 20)
    found = Traffic(names=(text, text), reached=(reached,) * 2, more_names=3, more_bytes=5 << 20)
    return found.model_copy(update=changes)


def hosts(text, reason):
    return Hosts(
        reached=(HostReached(host=text, port=443, requests=2, sent=1024, received=2048),),
        refused=(HostRefused(host=text, port=80, reason=reason, requests=7),),
        more_requests=5,
    )


def result(text, verdicts=(), **changes):
    helper = HelperResult(
        template=text, key=text, qemu=text, accelerator="tcg", acceleration_reason=text,
        security_note=text,
    )  # fmt: skip
    artifact = ArtifactResult(
        path=text, format="raw", bytes=5 << 30, virtual_bytes=5 << 30, allocated_bytes=7 << 20,
        sha256=text, tree_sha256=text,
    )  # fmt: skip
    stages = (
        StageResult(index=0, type=text, name=text, status="done", seconds=3.0, parts={text: 1.0}),
        StageResult(index=1, type=text, status="done", cached=True),
        StageResult(
            index=2, type=text, status="failed", network=traffic(text), hosts=hosts(text, text)
        ),
        StageResult(index=3, type=text, status="not-run"),
    )
    findings = (
        FindingResult(code=text, severity="error", place=text, message=text, accepted=True),
        FindingResult(code=text, severity="warning", place=text, message=text),
    )
    verification = Verification(seconds=1.0, findings=findings)
    found = Result(
        particle_os="0", status="passed", build_key=text, created=0.0, recipe=text,
        recipe_sha256=text, base=text, base_digest=text, architecture=text, helper=helper,
        apt_proxy=AptProxyResult(url=text, gone=False, hits=1, misses=2), stages=stages,
        verification=verification, artifacts=(artifact,), boot=tuple(verdicts),
        phases={"stages": 3.0, text: 1.0},
        controller_peak_rss_bytes=0, notes=(text,),
    )  # fmt: skip
    return found.model_copy(update=changes)


def commit(text):
    return CommitResult(
        ref=text, checksum=text, parent=text, version=text, signer=text,
        packages=(PackageResult(name=text, before=text, after=text),), packages_total=1,
        files=FilesResult(added=1, changed=2, removed=3, names=(text, text)),
    )  # fmt: skip


def full(text, evidence):
    """A page with `text` wherever a guest or a recipe can put any."""
    verdicts = [verdict(text), verdict(text, "passed", "uefi"), verdict(text, firmware="uefi")]
    return page.document(
        text,
        verdicts,
        result=result(text, verdicts, commit=commit(text)),
        packages=[Package(name=text, version=text, architecture=text, size=3 << 20)] * 3,
        evidence={firmware: evidence / firmware for firmware in ("bios", "uefi")},
        failure=StageFailed(text, hint=text, where=text, tail=[text, text]),
        source=page.RecipeText(text, [text, text], evidence),
    )


class Page(HTMLParser):
    """Tags in their order, and attributes; every tag that is opened is closed in its turn."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.open = [], [], []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
