#!/bin/busybox sh
# The guest's first process: brings up what every test takes for granted, then runs what comes in on the virtio port.
# A request is a line: an id, a number of seconds, a script in base64. The answer has the id in each of its
# marks, and everything between the marks in base64, so that nothing a script prints can be taken for a mark.

# Programs of packages go before busybox's own, whose shell would run its own whatever PATH says; what a program of
# busybox's runs in turn (timeout, xargs) must be named by its path.
for program in /usr/sbin/* /usr/bin/*; do
    name=${program##*/}
    busybox --list | busybox grep -qx "$name" && echo "$name() { $program \"\$@\"; }"
done >/run/programs
/bin/busybox --install -s /bin
export PATH=/sbin:/bin HOME=/
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
ip link set lo up

# Written where every script finds it: insmod refuses what is loaded already.
cat >/bin/load_modules <<'END'
#!/bin/sh
for module in "$@"; do
    grep -q "^$module " /proc/modules || insmod "/modules/$module.ko" || exit 1
done
END
chmod +x /bin/load_modules
load_modules $(cat /modules/at_boot)

if [ -e /modules/network ]; then
    # The device comes up a moment after its driver.
    for attempt in $(seq 50); do
        [ -e /sys/class/net/eth0 ] && break
        usleep 100000
    done
    ip addr add 10.0.2.15/24 dev eth0
    ip link set eth0 up
fi

# The port comes up a moment after its driver.
for attempt in $(seq 500); do
    [ -e /dev/vport0p1 ] && break
    usleep 10000
done
# It can be opened once only.
exec <>/dev/vport0p1 >&0
echo "@ready"
while read -r id seconds script; do
    { cat /run/programs; echo "$script" | base64 -d; } >/tmp/script
    timeout -k 1 "$seconds" sh /tmp/script </dev/null >/tmp/stdout 2>/tmp/stderr
    status=$?
    echo "@$id stdout"
    base64 /tmp/stdout
    echo "@$id stderr"
    base64 /tmp/stderr
    echo "@$id status $status"
done
