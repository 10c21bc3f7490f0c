#!/bin/sh
# A CI job: `job.sh install` installs particle-os from the source tree of this script, `job.sh build`
# builds and boot-tests an image, `job.sh report` hands its end over. action.yml calls them in turn.
#
#   PARTICLE_OS_VENV         the directory for the program
#   PARTICLE_OS_CACHE        the directory that the CI system keeps for the next job
#   PARTICLE_OS_RECIPE       the recipe
#   PARTICLE_OS_OUTPUT       the directory of the images
#   PARTICLE_OS_ACCELERATOR  auto, kvm or tcg
#   PARTICLE_OS_ARCHITECTURES  for `install`: architectures of images beside the machine's own
#   PARTICLE_OS_JUNIT        the file for the results as JUnit XML; `report` writes it after a kill
#   PARTICLE_OS_OUTCOME      for `report`: the outcome of the step that built, such as cancelled
#
# The results as Markdown are in summary.md beside the images.
#
# A job that root runs, as in a container, builds as an ordinary user.
set -eu

tree=$(cd "$(dirname "$0")/../.." && pwd)
user=particle-os-builder
begun=$PARTICLE_OS_VENV/build.pid
# The cache keeps what the builds of two weeks have used.
max_age=336

as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# Runs a command as the user who builds, in the place of this shell.
exec_as_user() {
	export XDG_CACHE_HOME="$PARTICLE_OS_CACHE"
	if [ "$(id -u)" != 0 ]; then exec "$@"; fi
	HOME=$(getent passwd "$user" | cut -d: -f6)
	export HOME
	exec setpriv --reuid="$user" --regid="$user" --init-groups --no-new-privs "$@"
}

install() {
	# The names are divided at spaces and line ends, and expand to nothing.
	set -f
	sh "$tree/host/setup.sh" packages ${PARTICLE_OS_ARCHITECTURES:-}
	set +f
	need_certificates
	python3 -m venv "$PARTICLE_OS_VENV"
	"$PARTICLE_OS_VENV/bin/pip" install --quiet --disable-pip-version-check "$tree"
	if [ "$(id -u)" = 0 ] && ! id "$user" >/dev/null 2>&1; then
		useradd --create-home "$user"
	fi
	allow_kvm
	"$PARTICLE_OS_VENV/bin/particle-os" version
	# A part of the cache's key, so that Debian's updates come in at least once a week.
	if [ -n "${GITHUB_OUTPUT:-}" ]; then date -u +week=%G-W%V >>"$GITHUB_OUTPUT"; fi
}

# A bare container has no certificates, and pip needs them.
need_certificates() {
	if [ -e /etc/ssl/certs/ca-certificates.crt ] || ! command -v apt-get >/dev/null; then return; fi
	set -- apt-get install -y -q --no-install-recommends ca-certificates
	as_root "$@" || { as_root apt-get update -q && as_root "$@"; }
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
	summary=$PARTICLE_OS_OUTPUT/summary.md
	set -- "$PARTICLE_OS_VENV/bin/particle-os" build "$PARTICLE_OS_RECIPE" \
		--output "$PARTICLE_OS_OUTPUT" --accel "${PARTICLE_OS_ACCELERATOR:-auto}" --progress plain \
		--no-save-memory --summary "$summary" "$@"
	mkdir -p "$PARTICLE_OS_OUTPUT" "$PARTICLE_OS_CACHE"
	need_own_directory output "$PARTICLE_OS_OUTPUT"
	if [ -n "${PARTICLE_OS_JUNIT:-}" ]; then
		mkdir -p "$(dirname "$PARTICLE_OS_JUNIT")"
		need_own_directory junit "$(dirname "$PARTICLE_OS_JUNIT")"
		set -- "$@" --junit "$PARTICLE_OS_JUNIT"
	fi
	# A build that is killed writes neither: those of an earlier build must not stand for it.
	for file in "$summary" "${PARTICLE_OS_JUNIT:-}"; do
		if [ -f "$file" ] && [ ! -L "$file" ]; then rm -f "$file"; fi
	done
	if [ "$(id -u)" = 0 ]; then
		chown -R "$user" "$PARTICLE_OS_OUTPUT" "$PARTICLE_OS_CACHE"
		if [ -n "${PARTICLE_OS_JUNIT:-}" ]; then chown "$user" "$(dirname "$PARTICLE_OS_JUNIT")"; fi
	fi
	echo "$$ $(started_at "$$")" >"$begun"
	exec_as_user "$@"
}

# need_own_directory INPUT DIRECTORY: the files of a clone must keep their owner, and must not be uploaded.
need_own_directory() {
	if [ -e "$2/.git" ]; then
		echo "job.sh: $1: $2 is a clone; name a place in a directory of its own, such as out" >&2
		exit 2
	fi
}

# started_at PID: prints when a process was started, and nothing if it has ended.
started_at() {
	sed -n 's/^.*) \([^Z]\) /\1 /p' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20
}

is_running() {
	[ "$(started_at "$1")" = "$2" ]
}

# A runner whose job runs in a container cannot send a signal into it: the build still runs.
end_build() {
	if [ ! -f "$begun" ]; then return; fi
	read -r pid start <"$begun"
	if ! is_running "$pid" "$start"; then return; fi
	echo "job.sh: the build still runs; it ends now" >&2
	kill -TERM "$pid"
	tries=300
	while is_running "$pid" "$start" && [ "$tries" -gt 0 ]; do
		sleep 0.1
		tries=$((tries - 1))
	done
	if is_running "$pid" "$start"; then kill -KILL "$pid"; fi
}

report() {
	if [ ! -x "$PARTICLE_OS_VENV/bin/particle-os" ]; then
		echo "job.sh: nothing to report: particle-os was not installed" >&2
		return
	fi
	end_build
	"$PARTICLE_OS_VENV/bin/python" "$tree/host/ci/report.py" build
	# This also removes what a build that was killed has left.
	if [ -d "$PARTICLE_OS_CACHE" ]; then
		(exec_as_user "$PARTICLE_OS_VENV/bin/particle-os" cache prune --max-age "$max_age" --quiet) ||
			echo "job.sh: the cache stays as it is" >&2
	fi
	"$PARTICLE_OS_VENV/bin/python" "$tree/host/ci/report.py" cache
}

verb=${1:-}
case $verb in
install | build | report)
	shift
	"$verb" "$@"
	;;
*)
	echo "job.sh: install, build or report" >&2
	exit 2
	;;
esac
