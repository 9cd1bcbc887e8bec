#!/usr/bin/env bash
# Proves that a program on this machine reaches tasks on other machines through a service port, and none but them:
#
#   smoke.sh [MARATHON_URL [APP [PORT]]]
#
# Asks Marathon where the tasks of the app are, waits until there are some on at least two machines, connects to localhost:PORT until
# every one has answered, and then some more times. Exit codes: 0 proved, 1 not, 2 could not tell.
set -euo pipefail

settings=/etc/proxymatic-cluster.env
if [ $# -eq 0 ] && [ -f "$settings" ]; then
    # shellcheck disable=SC1090 # written by provision.sh
    . "$settings"
fi
marathon=${1:-http://${MASTER_ADDRESS:-localhost}:8080}
app=${2:-/demo/web}
port=${3:-1234}
patience=${PATIENCE:-300}

fail() {
    echo "smoke.sh: $2" >&2
    exit "$1"
}

# One line for each task that runs: HOST:PORT.
tasks() {
    curl --silent --show-error --fail --max-time 5 "$marathon/v2/apps/${app#/}/tasks" |
        jq --raw-output '.tasks[] | select(.state == "TASK_RUNNING") | "\(.host):\(.ports[0])"' | sort
}

hosts() {
    sed 's/:[0-9]*$//' | sort --unique | wc --lines
}

deadline=$((SECONDS + patience))
until where=$(tasks) && [ "$(hosts <<< "$where")" -ge 2 ]; do
    [ $SECONDS -lt $deadline ] || fail 2 "no tasks of $app on two machines, says $marathon, after $patience s: ${where:-none}"
    sleep 1
done
echo "tasks of $app:"
while read -r task; do echo "   $task"; done <<< "$where"

if ss --no-header --listening --tcp --numeric "sport = :$port" | grep --quiet .; then
    fail 2 "a program here listens on $port itself, so that nothing would be proved"
fi

# Every task answers with a name of its own, which is asked for directly first.
expected=$(while read -r task; do curl --silent --fail --max-time 5 "http://$task/"; done <<< "$where" | sort --unique)
[ "$(wc --lines <<< "$expected")" -ge 2 ] || fail 2 "the tasks cannot be told apart by their answers: $expected"

answered=''
requests=0
until [ "$answered" = "$expected" ]; do
    [ $SECONDS -lt $deadline ] || fail 1 "localhost:$port was answered by '$answered', not by all of '$expected'"
    if answer=$(curl --silent --fail --max-time 5 "http://localhost:$port/"); then
        answered=$(printf '%s\n%s\n' "$answered" "$answer" | sed '/^$/d' | sort --unique)
        requests=$((requests + 1))
    else
        # Not served yet.
        sleep 0.2
    fi
done
# Now that all answer, not one request may fail.
for _ in $(seq 100); do
    curl --silent --fail --max-time 5 --output /dev/null "http://localhost:$port/" || fail 1 "a request to localhost:$port failed"
    requests=$((requests + 1))
done
echo "localhost:$port: $requests requests, answered by:"
while read -r name; do echo "   $name"; done <<< "$answered"
echo "ok: programs here reach tasks on $(hosts <<< "$where") machines"
