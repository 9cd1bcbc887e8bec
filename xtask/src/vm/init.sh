#!/bin/busybox sh
# shellcheck shell=dash
# Process 1 of a virtual machine: makes the machine's own files, with a layer above that is gone afterwards, its root.
b=/bin/busybox
fail() {
    echo "vm: $*"
    $b poweroff -f
}
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
for module in $($b cat /order); do
    $b insmod "/$module" || fail "no module $module"
done
$b mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=262144 machine /machine || fail "no files of the machine"
$b mount -t tmpfs layer /layer
$b mkdir /layer/upper /layer/work
$b mount -t overlay -o lowerdir=/machine,upperdir=/layer/upper,workdir=/layer/work overlay /new || fail "no layer"

# Of the machine's mounts none is there: they are folders in its files.
for mounted in proc sys dev; do
    $b mkdir -p /new/$mounted
    $b mount --move /$mounted /new/$mounted
done
$b mkdir -p /new/run /new/dev/shm /new/sys/fs/cgroup /new/sys/fs/bpf
$b mount -t tmpfs run /new/run
$b mount -t tmpfs shm /new/dev/shm
$b mount -t cgroup2 cgroup2 /new/sys/fs/cgroup || fail "no cgroup2"
$b mkdir -p /new/run/vm/out
$b mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 out /new/run/vm/out || fail "no folder for what comes out"
$b cp /bin/busybox /guest.sh /new/run/vm/
exec $b switch_root /new /run/vm/busybox sh /run/vm/guest.sh
