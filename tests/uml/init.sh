#!/bin/sh
# The first process of the guest: makes a root file system that may be written to, runs
# $SCRATCH/command in it, and powers off. What lies on the host is only read; the one folder
# that both write to is $SCRATCH.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# Before this, /proc is the host's, where /proc/self/exe of a guest's process leads elsewhere.
mount -t proc proc /proc
modules=/usr/lib/uml/modules/$(uname -r)
mount -t tmpfs upper /tmp
busybox insmod "$modules/kernel/fs/overlayfs/overlay.ko"
mkdir /tmp/upper /tmp/work /tmp/root
mount -t overlay -o lowerdir=/,upperdir=/tmp/upper,workdir=/tmp/work root /tmp/root
# Not chroot: the kernel starts modprobe in the root of all.
cd /tmp/root && pivot_root . mnt || busybox poweroff -f
mount -t proc proc /proc
umount -l /mnt

mount -t sysfs sys /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mount -t hostfs -o "$SCRATCH" scratch "$SCRATCH"

# The kernel loads what it misses by itself, as on a node.
mkdir -p /usr/lib/modules
ln -s "$modules" /usr/lib/modules/
modprobe ipv6
ip link set lo up

echo booted >"$SCRATCH/booted"
HOME=/root TMPDIR=/run /bin/sh "$SCRATCH/command" >"$SCRATCH/output" 2>&1
echo $? >"$SCRATCH/code"
busybox poweroff -f
