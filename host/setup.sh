#!/bin/sh
# Installs the requirements of particle-os: `setup.sh packages` installs distribution packages (on
# Debian and Ubuntu through apt; elsewhere it names them), `setup.sh venv` makes .venv. `setup.sh
# packages arm64` also installs what images of arm64 need, on any machine. `setup.sh
# test-packages` installs the additional Debian packages of the VM tests. `setup.sh programs`
# installs nothing: it names the packages that the unit tests lack.
# When everything is there, the script changes nothing and needs no privilege and no network.
set -eu

# The requirements, and the package of each distribution that has them.
TABLE=${0%/*}/particle_os/system/host_packages.txt
# For the tests: a registry, a proxy, container images, tools for package archives, file systems and commits, shells
# with completion, a browser, machines of another architecture.
TEST_PACKAGES="docker-registry apt-cacher-ng apt-utils buildah chromium dosfstools dpkg-dev e2fsprogs fdisk fish fonts-dejavu-core gpg gpg-agent grub-common iproute2 lz4 man-db mtools openssh-client ostree qemu-efi-aarch64 qemu-system-arm zsh"
[ "$(uname -m 2>/dev/null)" != aarch64 ] || TEST_PACKAGES="$TEST_PACKAGES ovmf qemu-system-x86"
BACKPORTS_FILE=/etc/apt/sources.list.d/particle-os-backports.sources

say() { echo "setup: $*" >&2; }

kernel=$(uname -s 2>/dev/null || echo Linux)
if [ "$kernel" != Linux ]; then
	say "particle-os runs on Linux, not on $kernel: use a Linux VM"
	exit 2
fi

own_architecture() {
	if [ "$(uname -m)" = aarch64 ]; then echo arm64; else echo amd64; fi
}

# choose_architectures NAME...: sets the architectures of builds: this machine's own, and those.
choose_architectures() {
	architectures=$(own_architecture)
	for name; do
		case $name in
		amd64 | arm64) ;;
		*)
			say "there is no architecture '$name'; particle-os makes images of amd64 and of arm64"
			exit 2
			;;
		esac
		case " $architectures " in *" $name "*) ;; *) architectures="$architectures $name" ;; esac
	done
}

# emulators: prints Debian's packages that emulate machines of the architectures.
emulators() {
	for name in $architectures; do
		case $name in amd64) echo qemu-system-x86 ;; arm64) echo qemu-system-arm ;; esac
	done
}

# Prints the family of the distribution, which is a column of the table; nothing for an unknown one.
family() {
	while IFS='=' read -r key value; do
		case $key in ID | ID_LIKE) ;; *) continue ;; esac
		value=${value#[\"\']}
		for name in ${value%[\"\']}; do
			case $name in
			debian | ubuntu) echo debian && return ;;
			fedora | rhel | centos) echo fedora && return ;;
			arch) echo arch && return ;;
			opensuse* | suse) echo opensuse && return ;;
			esac
		done
	done <"${OS_RELEASE:-/etc/os-release}"
}

has_uefi() {
	[ -e /usr/share/OVMF/OVMF_CODE_4M.fd ] || has_descriptor x86_64
}

has_uefi_of_arm64() {
	[ -e /usr/share/AAVMF/AAVMF_CODE.fd ] || has_descriptor aarch64
}

# has_descriptor TARGET: whether a descriptor for QEMU names firmware with UEFI for these machines.
has_descriptor() {
	for file in /usr/share/qemu/firmware/*.json; do
		grep -qs '"uefi"' "$file" && grep -qs "\"$1\"" "$file" && return
	done
	return 1
}

# is_for USE USES: whether a requirement for USES is one of USE, which is "build" or "unit". Builds also
# need what is for one of the architectures.
is_for() {
	wanted=$1
	[ "$1" != build ] || wanted="build $architectures"
	for one in $wanted; do
		case ",$2," in *",$one,"*) return ;; esac
	done
	return 1
}

is_there() {
	case $1 in
	/*) [ -e "$1" ] ;;
	uefi) has_uefi ;;
	uefi-arm64) has_uefi_of_arm64 ;;
	venv) [ -e .venv/bin/python ] || "${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null ;;
	*) command -v "$1" >/dev/null ;;
	esac
}

# lacking USE FAMILY: prints the packages for what is missing; USE is "build" or "unit".
lacking() {
	found=" "
	while read -r need use debian fedora arch opensuse; do
		case $need in "" | \#*) continue ;; esac
		is_for "$1" "$use" || continue
		is_there "$need" && continue
		case $2 in fedora) package=$fedora ;; arch) package=$arch ;; opensuse) package=$opensuse ;; *) package=$debian ;; esac
		case $found in *" $package "*) ;; *) found="$found$package " ;; esac
	done <"$TABLE"
	found=${found# }
	echo "${found% }"
}

# name_packages PACKAGE...: prints what to do where this script installs nothing.
name_packages() {
	packages="" user="" none=""
	for package; do
		case $package in -) none=1 ;; aur:*) user="$user ${package#aur:}" ;; *) packages="$packages $package" ;; esac
	done
	case $(family) in
	debian) echo "sudo apt install$packages" >&2 ;;
	fedora) echo "sudo dnf install$packages" >&2 ;;
	arch) echo "sudo pacman -S$packages" >&2 ;;
	opensuse) echo "sudo zypper install$packages" >&2 ;;
	*) say "this distribution is unknown; install the equivalents of Debian's:$packages" ;;
	esac
	[ -z "$user" ] || say "from the AUR:$user"
	[ -z "$none" ] || say "openSUSE has no package of apt, mmdebstrap or Debian's keys: use a container with Debian"
}

installed() {
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

wants_backports() {
	[ "${BACKPORTS:-1}" = 1 ] && grep -q '^VERSION_CODENAME=bookworm$' /etc/os-release
}

# Prints the mirror that apt already uses for bookworm: this script names no mirror.
backports_uri() {
	# shellcheck disable=SC2016
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

# An installation that was interrupted stops apt until dpkg has finished it.
prepare_apt() {
	export DEBIAN_FRONTEND=noninteractive
	dpkg --configure -a
	apt-get update -q
}

install_packages() {
	prepare_apt
	if wants_backports; then
		say "taking QEMU from bookworm-backports: it emulates twice as fast (BACKPORTS=0 keeps 7.2)"
		if grep -rqs bookworm-backports /etc/apt/sources.list /etc/apt/sources.list.d || add_backports; then
			apt-get update -q
			# shellcheck disable=SC2046
			apt-get install -y -q --no-install-recommends -t bookworm-backports $(emulators) qemu-utils
		fi
	fi
	# shellcheck disable=SC2046
	apt-get install -y -q --no-install-recommends $(lacking build debian)
}

install_test_packages() {
	# The packages would start servers that the whole network can reach. The tests start their own.
	mkdir -p /etc/systemd/system
	for name in docker-registry apt-cacher-ng; do
		unit=/etc/systemd/system/$name.service
		[ -e "$unit" ] || [ -L "$unit" ] || installed "$name" || ln -s /dev/null "$unit"
	done
	prepare_apt
	# All packages of QEMU are of one version.
	if wants_backports && installed qemu-system-common && apt-cache policy qemu-system-common |
		grep -q 'Installed:.*~bpo'; then
		apt-get install -y -q --no-install-recommends -t bookworm-backports qemu-system-arm qemu-system-x86
	fi
	# shellcheck disable=SC2086
	apt-get install -y -q --no-install-recommends $TEST_PACKAGES
}

packages() {
	missing=$(lacking build "$(family)")
	[ -n "$missing" ] || return 0
	if [ "$(family)" != debian ]; then
		say "builds need programs that are not installed:"
		# shellcheck disable=SC2086
		name_packages $missing
		exit 2
	fi
	say "installing $missing"
	# shellcheck disable=SC2086
	as_root install $architectures
}

test_packages() {
	missing=""
	for package in $TEST_PACKAGES; do
		installed "$package" || missing="$missing $package"
	done
	[ -n "$missing" ] || return 0
	if [ "$(family)" != debian ]; then
		say "the VM tests run on Debian and Ubuntu; they need the equivalents of:$missing"
		exit 2
	fi
	say "installing$missing"
	as_root install-test
}

# as_root VERB...: runs `setup.sh VERB...` as root, or names the command for an administrator.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		sh "$0" "$@"
	elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
		sudo BACKPORTS="${BACKPORTS:-1}" sh "$0" "$@"
	elif command -v sudo >/dev/null && [ -t 0 ] && sudo -v; then
		sudo BACKPORTS="${BACKPORTS:-1}" sh "$0" "$@"
	else
		say "this needs an administrator, once; nothing has changed. Ask an administrator to run:"
		echo "sudo BACKPORTS=${BACKPORTS:-1} sh $(realpath "$0") $*" >&2
		exit 2
	fi
}

programs() {
	missing=$(lacking unit "$(family)")
	[ -n "$missing" ] || return 0
	say "the unit tests need programs that are not installed:"
	# shellcheck disable=SC2086
	name_packages $missing
	exit 2
}

# Debian has a part of venv, ensurepip, in a separate package.
check_python() {
	python=${PYTHON:-python3}
	if ! command -v "$python" >/dev/null; then
		say "there is no $python; install Python 3.11 or newer. On Debian: sudo apt install python3 python3-venv"
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

verb=${1:-}
[ $# = 0 ] || shift
choose_architectures "$@"
case $verb in
packages) packages ;;
test-packages) test_packages ;;
install) install_packages ;;
install-test) install_test_packages ;;
programs) programs ;;
venv) venv ;;
*)
	echo "usage: $0 packages|install [ARCHITECTURE]..., or test-packages|install-test|programs|venv" >&2
	exit 2
	;;
esac
