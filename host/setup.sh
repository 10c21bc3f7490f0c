#!/bin/sh
# Installs the requirements of particle-os: `setup.sh packages` through apt, `setup.sh venv` into
# .venv. `setup.sh test-packages` installs the additional packages of the VM tests. `setup.sh
# programs` installs nothing: it names the packages that the unit tests lack.
# When everything is installed, the script changes nothing and needs no privilege and no network.
set -eu

PACKAGES="qemu-system-x86 qemu-utils ovmf mmdebstrap squashfs-tools-ng zstd debian-archive-keyring python3-venv skopeo"
# For the VM tests: a registry, a proxy, tools for package archives and file systems, a browser.
TEST_PACKAGES="docker-registry apt-cacher-ng apt-utils chromium dosfstools dpkg-dev e2fsprogs fdisk fonts-dejavu-core gpg gpg-agent lz4 mtools openssh-client"
# The programs that the unit tests run, each with its package.
PROGRAMS="dpkg-deb:dpkg lz4:lz4 mmdebstrap:mmdebstrap qemu-img:qemu-utils qemu-system-x86_64:qemu-system-x86 skopeo:skopeo
	sqfs2tar:squashfs-tools-ng ssh-keygen:openssh-client zstd:zstd"
BACKPORTS_FILE=/etc/apt/sources.list.d/particle-os-backports.sources

say() { echo "setup: $*" >&2; }

installed() {
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

wants_backports() {
	[ "${BACKPORTS:-1}" = 1 ] && grep -q '^VERSION_CODENAME=bookworm$' /etc/os-release
}

# Prints the mirror that apt already uses for bookworm: this script names no mirror.
backports_uri() {
	apt-get indextargets --format '$(CODENAME)|$(IDENTIFIER)|$(REPO_URI)' |
		sed -n 's/^bookworm|Packages|//p' | head -n 1
}

add_backports() {
	uri=$(backports_uri)
	if [ -z "$uri" ]; then
		say "apt has no source for bookworm; keeping the stock QEMU 7.2"
		return 1
	fi
	cat >"$BACKPORTS_FILE.new" <<-END
		# Added by particle-os for a newer QEMU. apt takes no other package from it unless asked.
		Types: deb
		URIs: $uri
		Suites: bookworm-backports
		Components: main
		Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
	END
	mv "$BACKPORTS_FILE.new" "$BACKPORTS_FILE"
}

install_packages() {
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -q
	if wants_backports; then
		say "taking QEMU from bookworm-backports: it emulates twice as fast (BACKPORTS=0 keeps 7.2)"
		if grep -rqs bookworm-backports /etc/apt/sources.list /etc/apt/sources.list.d || add_backports; then
			apt-get update -q
			apt-get install -y -q --no-install-recommends -t bookworm-backports \
				qemu-system-x86 qemu-utils
		fi
	fi
	# shellcheck disable=SC2086
	apt-get install -y -q --no-install-recommends $PACKAGES
}

install_test_packages() {
	export DEBIAN_FRONTEND=noninteractive
	# The packages would start servers that the whole network can reach. The tests start their own.
	mkdir -p /etc/systemd/system
	for name in docker-registry apt-cacher-ng; do
		unit=/etc/systemd/system/$name.service
		[ -e "$unit" ] || [ -L "$unit" ] || installed "$name" || ln -s /dev/null "$unit"
	done
	apt-get update -q
	# shellcheck disable=SC2086
	apt-get install -y -q --no-install-recommends $TEST_PACKAGES
}

# ensure VERB PACKAGE...: runs `setup.sh VERB` as root if one of the packages is missing.
ensure() {
	verb=$1
	shift
	missing=""
	for package; do
		installed "$package" || missing="$missing $package"
	done
	[ -n "$missing" ] || return 0
	if [ ! -e /etc/debian_version ]; then
		say "this is not Debian; install the equivalents of:$missing"
		exit 2
	fi
	say "installing$missing"
	if [ "$(id -u)" = 0 ]; then
		sh "$0" "$verb"
	elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
		sudo BACKPORTS="${BACKPORTS:-1}" sh "$0" "$verb"
	elif command -v sudo >/dev/null && [ -t 0 ] && sudo -v; then
		sudo BACKPORTS="${BACKPORTS:-1}" sh "$0" "$verb"
	else
		say "this needs an administrator, once; nothing has changed. Ask an administrator to run:"
		echo "sudo BACKPORTS=${BACKPORTS:-1} sh $(realpath "$0") $verb" >&2
		exit 2
	fi
}

programs() {
	missing=""
	for pair in $PROGRAMS; do
		command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair#*:}"
	done
	[ -n "$missing" ] || return 0
	say "the unit tests need programs that are not installed. On Debian:"
	echo "sudo apt install$missing" >&2
	exit 2
}

# Debian has a part of venv, ensurepip, in a separate package.
check_python() {
	python=${PYTHON:-python3}
	if ! command -v "$python" >/dev/null; then
		say "there is no $python. On Debian: sudo apt install python3 python3-venv"
	elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
		say "$python is older than 3.11; name a newer one with make PYTHON=python3.11"
	elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
		say "$python cannot make virtual environments. On Debian: sudo apt install python3-venv"
	else
		return 0
	fi
	exit 2
}

check_writable() {
	place=$top
	[ ! -e .venv ] || place=$top/.venv
	[ ! -w "$place" ] || return 0
	say "the Python packages belong into $top/.venv, and you may not write to $place."
	say "Make a clone of your own and run make in it: git clone $top"
	exit 2
}

install_python_packages() {
	log=.venv/pip.log
	.venv/bin/pip install --quiet --disable-pip-version-check --editable '.[dev]' 2>"$log" && return
	grep '^ *ERROR' "$log" >&2 || cat "$log" >&2
	say "pip cannot install the Python packages; all its messages are in $top/$log."
	say "pip needs a network, once. Behind a proxy, set https_proxy=http://HOST:PORT. Without a network,"
	say "set PIP_NO_INDEX=1 and PIP_FIND_LINKS=DIRECTORY, a directory of wheels ('pip download' makes it)."
	exit 2
}

venv() {
	top=$(dirname "$(dirname "$(realpath "$0")")")
	cd "$top"
	stamp=.venv/.installed
	sum=$(sha256sum pyproject.toml | cut -d' ' -f1)
	if [ "$(cat "$stamp" 2>/dev/null)" = "$sum $top" ]; then
		return 0
	fi
	check_writable
	say "installing Python packages into .venv"
	# An interrupted installation leaves a .venv without pip.
	if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
		check_python
		"$python" -m venv --clear .venv
	fi
	install_python_packages
	echo "$sum $top" >"$stamp"
}

case "${1:-}" in
packages)
	# shellcheck disable=SC2086
	ensure install $PACKAGES
	;;
test-packages)
	# shellcheck disable=SC2086
	ensure install-test $TEST_PACKAGES
	;;
install) install_packages ;;
install-test) install_test_packages ;;
programs) programs ;;
venv) venv ;;
*)
	echo "usage: $0 packages|test-packages|install|install-test|programs|venv" >&2
	exit 2
	;;
esac
