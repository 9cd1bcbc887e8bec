#!/bin/busybox sh
# shellcheck shell=dash disable=SC2154 # the plan assigns them
# Runs the tests inside a virtual machine, each by itself and within its time, and writes down how each came out.
# The plan gives: modules, binary, limit, and variables for the tests.
b=/run/vm/busybox
out=/run/vm/out
seconds() {
    $b cut -d' ' -f1 /proc/uptime
}
# shellcheck source=/dev/null
. $out/plan
$b mkdir -p "/lib/modules/$($b uname -r)"
$b mount --bind "$modules" "/lib/modules/$($b uname -r)"
# The kernel asks for modules by this name.
$b ln -s $b /run/vm/modprobe
echo /run/vm/modprobe >/proc/sys/kernel/modprobe
$b ifconfig lo up
$b mkdir $out/log
$b uname -r >$out/release
seconds >$out/booted
while read -r test; do
    echo "begin $test $(seconds)" >>$out/results
    $b timeout -k 5 "$limit" "$binary" --exact "$test" --nocapture --test-threads=1 \
        </dev/null >"$out/log/$test" 2>&1
    echo "end $test $(seconds) $?" >>$out/results
done <$out/tests
seconds >$out/done
$b poweroff -f
