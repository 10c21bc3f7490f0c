"""The types of option values: the names, texts and sizes that stages accept."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from particle_agent.contract.options import CONFIDENTIAL, PUBLIC_IF_VALID, Between, Options, Text

# Debian Policy 5.6.1 defines the name. apt adds the suffixes ":arch", "=version" and "/release".
PackageName = Annotated[
    str,
    Text(
        "a Debian package name such as 'openssh-server' (optionally :ARCH, =VERSION or /RELEASE)",
        # No minus at the end: apt-get(8) reads it as a request to remove the package.
        r"[a-z0-9][a-z0-9+.-]*[a-z0-9+.](:[a-z0-9-]*[a-z0-9])?"
        r"(=[A-Za-z0-9.+:~-]*[A-Za-z0-9.+:~]|/[a-z0-9.-]*[a-z0-9.])?",
    ),
]
# The name of an installed package has neither version nor release.
InstalledName = Annotated[
    str,
    Text(
        "a Debian package name such as 'openssh-server' (optionally :ARCH)",
        r"[a-z0-9][a-z0-9+.-]*[a-z0-9+.](:[a-z0-9-]*[a-z0-9])?",
    ),
]
# apt-get(8), --target-release.
ReleaseName = Annotated[
    str,
    Text("a release such as 'trixie-backports' or '13'", r"[A-Za-z0-9][A-Za-z0-9._-]*(/[a-z]+)?"),
]
# apt_preferences(5)
PinnedPackages = Annotated[
    str,
    Text(
        "package names or patterns such as 'nginx', 'linux-*' or '*', with spaces between them",
        r"(src:)?[a-z0-9*?][a-z0-9+.*?:-]*( (src:)?[a-z0-9*?][a-z0-9+.*?:-]*)*",
    ),
]
PinText = Annotated[
    str,
    Text(
        "the text after 'Pin:' in apt_preferences(5), such as 'release a=trixie-backports'",
        r"(release|version|origin) [ -~]+",
        500,
    ),
]
PinPriority = Annotated[int, Between(-32768, 32767)]
# debconf-set-selections(1)
DebconfQuestion = Annotated[
    str, Text("a debconf question such as 'locales/default'", r"[A-Za-z0-9][A-Za-z0-9+./_-]*")
]
DebconfValue = Annotated[str, Text("a text of one line", r"[^\x00-\x1f\x7f]*", 4096)]
# The name becomes a file name, and apt ignores files with other characters (sources.list(5)).
SourceName = Annotated[
    str,
    Text("a name of a-z, 0-9, '-' and '_'", r"[a-z0-9][a-z0-9_-]*", 100),
]
# sources.list(5). Without user and password, which everybody could read in the image.
SourceUri = Annotated[
    str,
    Text(
        "an http or https URL without user name, in which {date} stands for the snapshot's date",
        r"https?://([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?"
        r"(/([A-Za-z0-9._~%+/-]|\{date\})*)?",
        1000,
    ),
]
# apt_auth.conf(5). Without a protocol it is for https only.
RepositoryMachine = Annotated[
    str,
    Text(
        "a host such as 'packages.example.org' or 'https://packages.example.org:8443/private'",
        r"(https?://)?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[A-Za-z0-9._~%+/-]*)?",
        1000,
    ),
]
DownloadUrl = Annotated[
    str,
    Text(
        "an http or https URL without user name, such as 'https://example.org/tool.tar.gz'",
        r"https?://([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?"
        r"/[!#-&(-;=?-Z_a-z~\[\]]+",
        2000,
    ),
]
Sha256 = Annotated[str, Text("a SHA-256 digest: 64 digits of 0-9 and a-f", r"[0-9a-f]{64}", 64)]
SuiteName = Annotated[
    str,
    Text(
        "a suite such as 'trixie-security', or a directory such as './'", r"[A-Za-z0-9._/~+-]+", 200
    ),
]
ComponentName = Annotated[
    str, Text("a component such as 'main'", r"[A-Za-z0-9][A-Za-z0-9._/+-]*", 100)
]
ArchitectureName = Annotated[str, Text("a Debian architecture such as 'amd64'", r"[a-z0-9-]+", 20)]
# RFC 4880, 6.2
SigningKey = Annotated[
    str,
    Text(
        "an armored public key from 'gpg --armor --export'",
        r"-----BEGIN PGP PUBLIC KEY BLOCK-----\n[ -~\n]*-----END PGP PUBLIC KEY BLOCK-----\n*",
        1 << 18,
    ),
    PUBLIC_IF_VALID,
]
# apt derives the format of a keyring from the suffix.
KeyringPath = Annotated[
    str,
    Text(
        "the path of a keyring in the image, ending with .gpg, .asc or .pgp",
        r"/[A-Za-z0-9_./+-]+\.(gpg|asc|pgp)",
    ),
]
SnapshotDate = Annotated[str, Text("a date such as '20260131T000000Z'", r"[0-9]{8}T[0-9]{6}Z")]
# useradd(8) of Debian, without the trailing dollar of Samba machine accounts.
UserName = Annotated[
    str,
    Text(
        "a user or group name: a lower-case letter or '_', then at most 31 of a-z 0-9 _ -",
        r"[a-z_][a-z0-9_-]{0,31}",
        32,
    ),
]
# The accounts of packages have other names, too, such as Debian-exim.
KnownAccount = Annotated[
    str,
    Text(
        "the name of a user or group in the image, such as 'www-data' or 'Debian-exim'",
        r"[A-Za-z_][A-Za-z0-9_.-]{0,31}",
        32,
    ),
]
# SUPPORTED of glibc: language, territory, optional codeset and modifier.
LocaleName = Annotated[
    str,
    Text(
        "a locale such as 'de_DE.UTF-8' or 'C.UTF-8'",
        r"(C|[a-z]{2,3}_[A-Z]{2})(\.[A-Z0-9-]+)?(@[a-z]+)?",
    ),
]
# gettext(3): a language, optionally with a territory.
LanguageName = Annotated[
    str, Text("a language such as 'de' or 'pt_BR'", r"[a-z]{2,3}(_[A-Z]{2})?", 6)
]
ZoneName = Annotated[
    str,
    Text(
        "a time zone of the tz database such as 'Europe/Berlin'",
        r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9][A-Za-z0-9_+-]*)*",
    ),
]
# crypt(5): "$id$…", or a marker that matches no password.
PasswordHash = Annotated[
    str,
    Text(
        "a password hash of crypt(5), as printed by 'mkpasswd' or 'openssl passwd -6'; '!' or '*'",
        r"\$[0-9a-z]+\$[A-Za-z0-9./$=,+-]+|[!*]",
    ),
    CONFIDENTIAL,
]
# sshd(8), AUTHORIZED_KEYS FILE FORMAT: options with a quoted value each, the key, a comment.
_KEY_OPTION = r'[A-Za-z0-9@.-]+(="([^"\\\x00-\x1f\x7f]|\\[^\x00-\x1f\x7f])*")?'
SshPublicKey = Annotated[
    str,
    Text(
        "an OpenSSH public key such as 'ssh-ed25519 AAAA… name', optionally after options",
        rf"({_KEY_OPTION}(,{_KEY_OPTION})* )?"
        r"(ssh-(ed25519|rsa)|ecdsa-sha2-nistp(256|384|521)"
        r"|sk-(ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com)"
        r" [A-Za-z0-9+/]+={0,3}( [^\x00-\x1f\x7f]*)?",
        16384,
    ),
    PUBLIC_IF_VALID,
]
AbsolutePath = Annotated[
    str,
    Text(
        "an absolute path without '..', ':', control characters, or '/' at its end",
        r"(/([^./:\x00-\x1f\x7f]|\.[^./:\x00-\x1f\x7f])[^/:\x00-\x1f\x7f]*)+|/",
        4096,
    ),
]


def size_meant(text: str) -> str | None:
    """The size that the user probably meant by one in other units, such as '4GB' or '2 GiB'."""
    found = re.fullmatch(r"([1-9][0-9]{0,5}) ?([mgt])(i?b)?", text.lower())
    if found is None:
        return None
    number, unit = int(found[1]), found[2]
    return f"{number * 1024}G" if unit == "t" else f"{number}{unit.upper()}"


# Binary units, as in qemu-img.
DiskSize = Annotated[
    str,
    Text(
        "'auto', 'minimal', or a size in M or G (powers of 1024) such as '800M' or '4G'",
        r"auto|minimal|[1-9][0-9]{0,8}[MG]",
        meant=size_meant,
    ),
]
SwapSize = Annotated[
    str,
    Text(
        "'none', or a size in M or G (powers of 1024) such as '512M' or '2G'",
        r"none|[1-9][0-9]{0,5}[MG]",
        meant=size_meant,
    ),
]
# RFC 1123; Linux limits host names to 64 characters.
HostName = Annotated[
    str,
    Text(
        "a host name of a-z, 0-9, '-' and '.', at most 64 characters",
        r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*",
        64,
    ),
]
# A string, because YAML readers disagree whether the number 0644 is octal or decimal.
FileMode = Annotated[
    str, Text("a file mode in quotes such as '0644' (octal digits)", r"0?[0-7]{3,4}", 5)
]
# fstab(5)
MountSource = Annotated[
    str,
    Text(
        "a file system such as 'LABEL=data', '/dev/disk/by-id/…', 'server:/export' or 'tmpfs'",
        r"[^\x00-\x1f\x7f]+",
        4096,
    ),
]
MountTarget = Annotated[
    str,
    Text(
        "an absolute path such as '/srv', or 'none' for swap",
        r"(/([^./:\x00-\x1f\x7f]|\.[^./:\x00-\x1f\x7f])[^/:\x00-\x1f\x7f]*)+|/|none",
        4096,
    ),
]
FileSystemType = Annotated[
    str, Text("a type of file system such as 'ext4' or 'nfs'", r"[a-z0-9][a-z0-9._-]*", 64)
]
MountOption = Annotated[
    str,
    Text("one mount option such as 'nofail', without ','", r"[^,\x00-\x20\x7f]+", 1024),
]
PassNumber = Annotated[int, Between(0, 2)]
# '*' and '?' match within a name, and the name '**' any number of directories.
PathPattern = Annotated[
    str,
    Text(
        "a pattern for paths in the image such as '/etc/sudoers.d/*' or '/srv/www/**', in which "
        "'**' stands between slashes",
        r"(/(\*\*|\*|\*?([^/*\x00-\x1f\x7f]\*?)+))+",
        4096,
    ),
]
# chown(1)
OwnerText = Annotated[
    str,
    Text(
        "a user, a user and a group, or a group, such as 'www-data', 'root:adm' or ':adm'",
        r"[A-Za-z_][A-Za-z0-9_.-]{0,31}(:[A-Za-z_][A-Za-z0-9_.-]{0,31})?"
        r"|:[A-Za-z_][A-Za-z0-9_.-]{0,31}",
        65,
    ),
]
LinkText = Annotated[str, Text("a path without control characters", r"[^\x00-\x1f\x7f]+", 4096)]
UnitName = Annotated[
    str,
    Text("a systemd unit such as 'ssh.service'", r"[A-Za-z0-9:_.@\\-]+\.[a-z]+"),
]
UnitOrService = Annotated[
    str,
    Text(
        "a systemd unit such as 'ssh.service' or 'ssh'",
        r"[A-Za-z0-9:_.@\\-]+\.[a-z]+|[A-Za-z0-9_]([A-Za-z0-9:_.@-]*[A-Za-z0-9:_@-])?",
    ),
]
# systemd.time(7), CALENDAR EVENTS
Calendar = Annotated[
    str, Text("a time such as 'daily' or 'Mon *-*-* 03:00'", r"[A-Za-z0-9*.,:/~+ _-]+", 200)
]
FileStem = Annotated[
    str,
    Text("a file name of letters, digits, '-', '_' and '.'", r"[A-Za-z0-9][A-Za-z0-9._-]*", 100),
]
Argument = Annotated[str, Text("a text without NUL characters", r"[^\x00]*", 65536)]
Script = Annotated[str, Text("the text of a script, without NUL characters", r"[^\x00]+", 262144)]
# systemd.network(5): kernel interface names with shell wildcards.
InterfaceName = Annotated[
    str,
    Text(
        "a network interface such as 'ens3', or a pattern such as 'en*'",
        r"[A-Za-z0-9_.*?\[][A-Za-z0-9_.*?@:\[\]-]{0,30}",
        31,
    ),
]
IpAddress = Annotated[
    str,
    Text("an IP address such as '192.0.2.1' or '2001:db8::1'", r"[0-9a-fA-F:][0-9a-fA-F:.]+", 45),
]
InterfaceAddress = Annotated[
    str,
    Text(
        "an IP address with the length of its prefix such as '192.0.2.10/24'",
        r"[0-9a-fA-F:][0-9a-fA-F:.]+/[0-9]{1,3}",
        49,
    ),
]
# The kernel's documentation, admin-guide/kernel-parameters. Spaces within quotes are excluded.
KernelWord = Annotated[
    str, Text("one word for the kernel's command line such as 'quiet'", r"[!-~]+", 255)
]
ModuleName = Annotated[
    str,
    Text("the name of a kernel module such as 'br_netfilter'", r"[A-Za-z0-9_][A-Za-z0-9_-]*", 64),
]
# xkeyboard-config(7). Shells read the files that these names go into.
XkbName = Annotated[
    str,
    Text("a name of xkeyboard-config(7) such as 'de' or 'pc105'", r"[A-Za-z0-9][A-Za-z0-9_+-]*"),
]
XkbLayouts = Annotated[
    str,
    Text(
        "a layout of xkeyboard-config(7) such as 'de', or several such as 'us,ru'",
        r"[A-Za-z0-9][A-Za-z0-9_+-]*(,[A-Za-z0-9][A-Za-z0-9_+-]*)*",
    ),
]
XkbVariants = Annotated[
    str,
    Text(
        "a variant of xkeyboard-config(7) such as 'nodeadkeys', or one for each layout",
        r"([A-Za-z0-9][A-Za-z0-9_+-]*)?(,([A-Za-z0-9][A-Za-z0-9_+-]*)?)*",
    ),
]
XkbOption = Annotated[
    str,
    Text(
        "an option of xkeyboard-config(7) such as 'compose:caps'",
        r"[A-Za-z0-9_]+:[A-Za-z0-9][A-Za-z0-9_+-]*",
    ),
]
UserId = Annotated[int, Between(0, 4294967294)]
GroupId = Annotated[int, Between(0, 4294967294)]
Date = Annotated[
    str,
    Text("a date such as '2030-12-31'", r"[1-9][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"),
]
# subuid(5)
SubordinateId = Annotated[int, Between(65536, 4294967294)]
IdCount = Annotated[int, Between(1, 1 << 31)]
# passwd(5): the fifth field.
Comment = Annotated[
    str, Text("a text without ':' and control characters", r"[^:\x00-\x1f\x7f]*", 1024)
]


def bytes_of(size: str) -> int:
    """The bytes of a numeric `DiskSize` or `SwapSize`."""
    return int(size[:-1]) << {"M": 20, "G": 30}[size[-1]]


@dataclass(frozen=True, kw_only=True)
class Download(Options):
    """A file from the network, which the host fetches and keeps in its cache."""

    url: DownloadUrl
    """The URL, with http or https."""
    sha256: Sha256
    """The SHA-256 digest of the file, from a source that you trust. Another file is refused."""

    @property
    def reference(self) -> str:
        """The reference to the attached file (see `OnHost`)."""
        return f"sha256:{self.sha256}"


def downloads(value: object) -> Iterator[Download]:
    """The downloads among the options of a stage."""
    if isinstance(value, Download):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from downloads(item)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from downloads(getattr(value, field.name))
