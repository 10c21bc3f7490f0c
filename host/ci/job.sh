#!/bin/sh
# A CI job: `job.sh install` installs particle-os from the source tree of this script, `job.sh build`
# builds and boot-tests an image, `job.sh outputs` names the files. action.yml calls them in turn.
#
#   PARTICLE_OS_VENV         the directory for the program
#   PARTICLE_OS_CACHE        the directory that the CI system keeps for the next job
#   PARTICLE_OS_RECIPE       the recipe
#   PARTICLE_OS_OUTPUT       the directory of the images
#   PARTICLE_OS_ACCELERATOR  auto, kvm or tcg
#   PARTICLE_OS_JUNIT        the file for the results as JUnit XML
#
# The results as Markdown are in summary.md beside the images.
#
# A job that root runs, as in a container, builds as an ordinary user.
set -eu

tree=$(cd "$(dirname "$0")/../.." && pwd)
user=particle-os-builder

as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

install() {
	sh "$tree/host/setup.sh" packages
	python3 -m venv "$PARTICLE_OS_VENV"
	"$PARTICLE_OS_VENV/bin/pip" install --quiet --disable-pip-version-check "$tree"
	if [ "$(id -u)" = 0 ] && ! id "$user" >/dev/null 2>&1; then
		useradd --create-home "$user"
	fi
	allow_kvm
	"$PARTICLE_OS_VENV/bin/particle-os" version
}

# Hosted runners have /dev/kvm for root and a group that the job's user is not in.
allow_kvm() {
	if [ ! -e /dev/kvm ]; then return; fi
	if [ "$(id -u)" != 0 ] && [ -w /dev/kvm ]; then return; fi
	if command -v udevadm >/dev/null && [ -d /run/udev ]; then
		rule='KERNEL=="kvm", GROUP="kvm", MODE="0666", OPTIONS+="static_node=kvm"'
		echo "$rule" | as_root tee /etc/udev/rules.d/99-particle-os-kvm.rules >/dev/null
		as_root udevadm control --reload-rules
		as_root udevadm trigger --name-match=kvm --settle
	else
		as_root chmod 0666 /dev/kvm
	fi || echo "job.sh: /dev/kvm stays closed; the build emulates the processor" >&2
}

# The build takes the place of this shell, so that the signals of a cancelled job reach it.
build() {
	set -- "$PARTICLE_OS_VENV/bin/particle-os" build "$PARTICLE_OS_RECIPE" \
		--output "$PARTICLE_OS_OUTPUT" --accel "${PARTICLE_OS_ACCELERATOR:-auto}" --progress plain \
		--summary "$PARTICLE_OS_OUTPUT/summary.md" "$@"
	mkdir -p "$PARTICLE_OS_OUTPUT" "$PARTICLE_OS_CACHE"
	if [ -n "${PARTICLE_OS_JUNIT:-}" ]; then
		mkdir -p "$(dirname "$PARTICLE_OS_JUNIT")"
		set -- "$@" --junit "$PARTICLE_OS_JUNIT"
	fi
	export XDG_CACHE_HOME="$PARTICLE_OS_CACHE"
	if [ "$(id -u)" != 0 ]; then exec "$@"; fi
	chown -R "$user" "$PARTICLE_OS_OUTPUT" "$PARTICLE_OS_CACHE"
	if [ -n "${PARTICLE_OS_JUNIT:-}" ]; then chown "$user" "$(dirname "$PARTICLE_OS_JUNIT")"; fi
	HOME=$(getent passwd "$user" | cut -d: -f6)
	export HOME
	exec setpriv --reuid="$user" --regid="$user" --init-groups --no-new-privs "$@"
}

verb=$1
shift
case $verb in
install) install ;;
build) build "$@" ;;
outputs) exec "$PARTICLE_OS_VENV/bin/python" "$tree/host/ci/outputs.py" "$PARTICLE_OS_OUTPUT" ;;
*)
	echo "job.sh: install, build or outputs" >&2
	exit 2
	;;
esac
