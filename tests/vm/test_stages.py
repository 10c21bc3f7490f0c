"""The work of the stages shows in the booted image and on its disk."""

from __future__ import annotations

import hashlib
import re
import subprocess
import tarfile
from pathlib import Path

from .conftest import Account, Outcome, example, leftovers

Built = tuple[Outcome, Path]
OFFSET = 1 << 20
STAGES = """\
- type: apt
  packages: [iptables, nftables, sudo, xz-utils]
- type: kernel
  command-line: [particle.seen=1]
  modules: [loop]
  initramfs-modules: [dm-mod]
  compression: xz
- type: keyboard
  layout: ${layout}
  variant: nodeadkeys
- type: groups
  groups: [{name: deployers, gid: 3000, members: [admin]}]
- type: network
  interfaces:
    - match: [en*, eth*]
      dhcp: yes
      addresses: [10.0.2.40/24]
      dns: [192.0.2.53]
      search-domains: [example.org]
- type: users
  secrets: [{name: first-password, env: FIRST_PASSWORD}]
  users:
    - name: deploy
      comment: Deploys what is built
      password-secret: first-password
      password: expired
      ssh-authorized-keys-file: keys/deploy.pub
    - name: batch
      system: true
      lock: true
    - name: operator
      sudo: no-password
    - name: admin
      sudo: password
- type: hostname
  hostname: web1.example.org
- type: files
  directories:
    - path: /srv/www
      mode: "2775"
      owner: admin
      group: www-data
  files:
    - path: /etc/systemd/system/hello.service
      content: |
        [Service]
        Type=oneshot
        RemainAfterExit=yes
        ExecStart=/usr/bin/grep -q "a b; $(id)" /srv/current/said
        [Install]
        WantedBy=multi-user.target
    - path: /etc/systemd/system/seen.service
      content: |
        [Unit]
        Wants=network-online.target
        After=network-online.target
        [Service]
        Type=oneshot
        RemainAfterExit=yes
        ExecStart=/usr/bin/grep -q particle.seen=1 /proc/cmdline
        ExecStart=/usr/bin/grep -q '^loop ' /proc/modules
        ExecStart=/usr/bin/grep -q '^dm_mod ' /proc/modules
        ExecStart=/usr/bin/grep -q ADDRESS_STATE=routable /run/systemd/netif/state
        ExecStart=/usr/bin/grep -qw 10.0.2.40 /proc/net/fib_trie
        ExecStart=/usr/bin/grep -rq ADDRESS=10.0.2. /run/systemd/netif/leases
        [Install]
        WantedBy=multi-user.target
    - path: /srv/rules.nft
      content: |
        table inet filter {
          chain input {
            type filter hook input priority filter; policy drop;
            ct state established,related accept
            tcp dport 22 limit rate 9/minute log prefix "ssh " accept
            reject with icmpx admin-prohibited
          }
          chain out { type nat hook postrouting priority srcnat; masquerade; }
        }
    - path: /etc/secret
      content: "x"
      mode: "0600"
  links:
    - path: /srv/current
      to: www
- type: services
  enable: [hello.service, seen.service]
  disable: [dpkg-db-backup.timer]
  mask: [apt-daily.timer]
- type: run
  command: [NAME=said, sh, -eu, -c, 'echo "$0" > "$NAME"', "a b; $(id)"]
  working-directory: /srv/www
- type: run
  interpreter: [/usr/bin/perl, -w]
  environment: {WHO: "it's $me"}
  script: |
    open(my $file, ">", "by-perl") or die; print $file "$ENV{WHO}, $^W";
  working-directory: /srv
- type: run
  name: One may be root, and one if it knows its password
  script: |
    test "$(setpriv --reuid=operator --regid=operator --init-groups sudo -n id -u)" = 0
    if setpriv --reuid=admin --regid=admin --init-groups sudo -n true 2>/tmp/said; then exit 1; fi
    grep -q 'password is required' /tmp/said
- type: run
  name: Nothing but a loopback
  network: none
  script: |
    test "$(grep -c : /proc/net/dev)" = 1
    grep -q " lo:" /proc/net/dev
    if nsenter --net=/proc/1/ns/net true; then exit 1; fi
    if mount -t proc proc /mnt; then exit 1; fi
- type: run
  name: The rules of a firewall
  network: none
  script: |
    nft -c -f /srv/rules.nft
    test -z "$(nft list ruleset)"
    if sed s/policy/polcy/ /srv/rules.nft | nft -c -f -; then exit 1; fi
    nft -f /srv/rules.nft
    nft list ruleset | grep -q masquerade
    echo '*filter
    -A INPUT -m conntrack --ctstate NEW -p tcp --dport 22 -j ACCEPT
    COMMIT' | sed 's/^ *//' | iptables-restore --test
- type: run
  name: No rule outlives its stage, and none is for the VM
  script: |
    if nft -c -f /srv/rules.nft 2>/tmp/said; then exit 1; fi
    grep -q 'Operation not permitted' /tmp/said
- type: cleanup
  keep-languages: [de]
"""
PASSWORD = "correct horse $(battery) 'staple'"
KEYS = """\
# Who deploys
ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl deploy@example.org
"""


def on_disk(image: Path, command: str) -> str:
    """The output of debugfs for the image's file system."""
    argv = ["/sbin/debugfs", "-R", command, f"{image}?offset={OFFSET}"]
    return subprocess.run(argv, check=True, capture_output=True, timeout=60).stdout.decode()


def test_host_name_files_services_and_commands(account: Account, built: Built) -> None:
    """The first stages come from the checkpoints of another recipe."""
    for name, content in (("parts/more-stages.yml", STAGES), ("parts/keys/deploy.pub", KEYS)):
        account.make_directory("parts")
        account.make_directory("parts/keys")
        account.write(account.directory / name, content)
    minimal = example(account, "minimal-test").read_text()
    text = minimal.replace(
        "  - type: qemu\n", "  - include: parts/more-stages.yml\n  - type: qemu\n"
    )
    text = text.replace("name: minimal-test", "name: more\nvariables: {layout: us}")
    disk = "formats: [raw]\n    partition-table: msdos\n    size: minimal"
    text = text.replace("formats: [raw, qcow2]\n    size: auto", disk)
    units = "- unit: hello.service\n    - unit: seen.service"
    text = text.replace("- unit: multi-user.target", units)
    recipe = account.write(account.directory / "more.yml", text)
    output = account.make_directory("more")
    argv = ["build", recipe, "--output", output, "--json", "--progress", "plain"]
    outcome = account.run(
        *argv, "--set", "layout=de", "--allow-env", "FIRST_PASSWORD", FIRST_PASSWORD=PASSWORD
    )
    assert outcome.status == 0, outcome.stderr
    result = outcome.json()
    assert [stage["cached"] for stage in result["stages"]] == [True] * 4 + [False] * 17
    facts = result["boot"][0]["facts"]
    assert facts["hostname"] == "web1.example.org"
    checks = {check["name"]: check["passed"] for check in result["boot"][0]["checks"]}
    # seen.service checks that kernel and network are as the stages configure them.
    assert {"unit hello.service", "unit seen.service"} <= checks.keys()
    assert all(checks.values())
    image = output / "more.raw"
    assert on_disk(image, "cat /etc/hosts").startswith("127.0.1.1 web1.example.org web1\n")
    assert on_disk(image, "cat /srv/www/said") == "a b; $(id)\n"
    directory = on_disk(image, "stat /srv/www").split()
    assert directory[directory.index("Mode:") + 1] == "02775"
    assert directory[directory.index("User:") + 1] == "1000"
    assert directory[directory.index("Group:") + 1] == "33"
    assert "Mode:  0600" in on_disk(image, "stat /etc/secret")
    assert '"/dev/null"' in on_disk(image, "stat /etc/systemd/system/apt-daily.timer")
    timers = on_disk(image, "ls -p /etc/systemd/system/timers.target.wants")
    assert "/fstrim.timer/" in timers
    assert "dpkg-db-backup" not in timers
    assert "deployers:x:3000:admin\n" in on_disk(image, "cat /etc/group")
    keyboard = on_disk(image, "cat /etc/default/keyboard")
    assert 'XKBLAYOUT="de"' in keyboard
    assert 'XKBVARIANT="nodeadkeys"' in keyboard
    resolv_conf = on_disk(image, "cat /etc/resolv.conf")
    assert resolv_conf == "nameserver 192.0.2.53\nsearch example.org\n"
    assert on_disk(image, "cat /srv/by-perl") == "it's $me, 1"
    documents = on_disk(image, "ls -p /usr/share/doc/apt")
    assert "/copyright/" in documents
    assert "/changelog" not in documents
    assert on_disk(image, "ls -p /usr/share/locale/fr") == ""
    assert "LC_MESSAGES" in on_disk(image, "ls -p /usr/share/locale/de")
    assert _initramfs(image, output).startswith(b"\xfd7zXZ\0")
    _check_accounts(image)


def _initramfs(image: Path, directory: Path) -> bytes:
    """The compressed part of the image's initramfs, without the plain archive before it."""
    (name,) = re.findall(r"/(initrd\.img-[^/]+)/", on_disk(image, "ls -p /boot"))
    on_disk(image, f"dump /boot/{name} {directory}/initrd")
    return (directory / "initrd").read_bytes().rpartition(b"TRAILER!!!")[2].lstrip(b"\0")


def _check_accounts(image: Path) -> None:
    """Checks the accounts of the `users` stage; the image only has the hash of the password."""
    shadow = {
        fields[0]: fields[1:]
        for fields in (line.split(":") for line in on_disk(image, "cat /etc/shadow").splitlines())
    }
    hashed, changed = shadow["deploy"][:2]
    assert changed == "0", "the password has expired"
    assert hashed.startswith("$")
    perl = ["perl", "-e", "print crypt($ARGV[0], $ARGV[1])", PASSWORD, hashed]
    assert subprocess.run(perl, check=True, capture_output=True, text=True).stdout == hashed
    assert shadow["batch"][6] == "1", "the account has expired"
    passwd = on_disk(image, "cat /etc/passwd")
    assert re.search(
        "^deploy:x:1001:1001:Deploys what is built:/home/deploy:/bin/bash$", passwd, re.M
    )
    assert re.search(r"^batch:x:\d{3}:\d{3}::/nonexistent:/usr/sbin/nologin$", passwd, re.M)
    assert on_disk(image, "cat /home/deploy/.ssh/authorized_keys") == KEYS.splitlines()[1] + "\n"
    keys = on_disk(image, "stat /home/deploy/.ssh/authorized_keys").split()
    assert [keys[keys.index(what) + 1] for what in ("Mode:", "User:", "Group:")] == [
        *("0600", "1001", "1001")
    ]


def test_a_stage_runs_alone_and_gives_a_root_file_system(
    account: Account, tiny_base: Path, built: Built
) -> None:
    output = account.make_directory("alone")
    options = account.write(
        output / "files.yml",
        "variables: {who: you}\n"
        "directories: [{path: /srv/www, mode: '2775'}]\n"
        "files: [{path: /srv/www/hello, content: 'To ${who}', mode: '0600'}]\n"
        "links: [{path: /srv/current, to: www}]\n",
    )
    argv = ["stage", "run", "files", "--options", options, "--base", f"tar:{tiny_base}"]
    argv += ["--set", "who=me", "--json"]
    outcome = account.run(*argv, "--output", output / "root.tar")
    assert outcome.status == 0, outcome.stderr
    told = outcome.json()
    assert (told["stage"]["type"], told["stage"]["status"]) == ("files", "done")
    data = (output / "root.tar").read_bytes()
    assert told["archive"]["sha256"] == hashlib.sha256(data).hexdigest()
    with tarfile.open(output / "root.tar") as archive:
        members = {member.name: member for member in archive}
        content = archive.extractfile("./srv/www/hello")
        assert content is not None
        assert content.read() == b"To me"
    assert members["./srv/www"].mode == 0o2775
    assert (members["./srv/www/hello"].mode, members["./srv/www/hello"].uid) == (0o600, 0)
    assert members["./srv/current"].linkname == "www"
    assert "./usr/bin/busybox" in members, "files of the base stay"
    assert leftovers(account, output) == []
    # A failure has the stage's message, and the earlier archive stays.
    account.write(options, "files: [{path: /usr, content: ''}]\n")
    failed = account.run(*argv[:-3], "--output", output / "root.tar")
    assert failed.status == 3
    assert f"stage 1 (files), {options}:1" in failed.stderr
    assert "/usr exists in the image and is a directory" in failed.stderr
    assert (output / "root.tar").read_bytes() == data
