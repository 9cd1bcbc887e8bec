#!/usr/bin/env bash
# Makes a machine of the cluster: provision.sh STEP ROLE OWN_ADDRESS MASTER_ADDRESS
#
#   packages   installs Docker and docker-compose
#   cgroups    has the next boot use cgroup v1, which is all that Mesos knows
#   settings   writes what docker-compose and the other scripts read
#   up         builds or loads the images, and starts what the role has
#
# ROLE is master (ZooKeeper, Mesos' master, Marathon, the apps) or agent (Mesos' agent, proxymatic). The services are those of
# docker-compose.yml, with what vagrant/node.yml changes for several machines. Running a step again changes nothing.
set -euo pipefail

step=$1 role=$2 own=$3 master=$4
sources=$(cd "$(dirname "$0")/.." && pwd)
settings=/etc/proxymatic-cluster.env
case $role in
    master) services=(zookeeper mesos-master marathon apps) ;;
    agent) services=(mesos-slave gateway events) ;;
    *) echo "provision.sh: a role is master or agent, not $role" >&2; exit 2 ;;
esac

packages() {
    export DEBIAN_FRONTEND=noninteractive
    apt-get update --quiet
    apt-get install --yes --quiet --no-install-recommends ca-certificates curl docker.io docker-compose jq
}

cgroups() {
    local parameter=systemd.unified_cgroup_hierarchy=0
    if ! grep --quiet "$parameter" /etc/default/grub; then
        # shellcheck disable=SC2016 # the variable is grub's
        printf '\nGRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX %s"\n' "$parameter" >> /etc/default/grub
        update-grub
    fi
}

settings() {
    cat > "$settings" <<END
HOST_ADDRESS=$own
MASTER_ADDRESS=$master
END
}

compose() {
    docker-compose --project-name proxymatic --project-directory "$sources" --env-file "$settings" \
        -f "$sources/docker-compose.yml" -f "$sources/vagrant/node.yml" "$@"
}

up() {
    local images=$sources/target/images.tar
    # Where `docker save proxymatic proxymatic-demo` was run before, nothing has to be compiled here.
    if [ -f "$images" ]; then
        docker load --quiet --input "$images"
    else
        compose build --quiet
    fi
    # The apps end when they are submitted; all else stays.
    compose up --detach --no-build --no-deps "${services[@]}"
}

case $step in
    packages | cgroups | settings | up) "$step" ;;
    *) echo "provision.sh: a step is packages, cgroups, settings or up, not $step" >&2; exit 2 ;;
esac
