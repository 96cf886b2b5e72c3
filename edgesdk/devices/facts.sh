# What a device says about itself: one line a fact, "key value". The device has sh and little else.
# Nothing is guessed: what is not said stays away.
say() { [ -n "$2" ] && printf '%s %s\n' "$1" "$2"; }
file() { [ -r "$1" ] && tr -d '\000' < "$1" | head -n 1; }
say architecture "$(uname -m)"
say kernel "$(uname -r)"
if command -v getprop > /dev/null 2>&1; then
    say os android
    say release "$(getprop ro.build.version.release)"
    say model "$(getprop ro.product.manufacturer) $(getprop ro.product.model)"
    say soc "$(getprop ro.soc.model)"
    [ "$(getprop ro.boot.qemu)$(getprop ro.kernel.qemu)" = "" ] || say emulated "ro.boot.qemu"
else
    say os "$(uname -s | tr A-Z a-z)"
    say release "$(. /etc/os-release 2> /dev/null && echo "$PRETTY_NAME")"
    model=$(file /proc/device-tree/model)
    say model "${model:-$(file /sys/class/dmi/id/product_name)}"
fi
if [ -r /proc/device-tree/compatible ]; then
    tr '\000' '\n' < /proc/device-tree/compatible | grep -q -e dummy-virt -e qemu && say emulated "device tree"
fi
say ram_kb "$(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo)"
say cores "$(grep -c '^processor' /proc/cpuinfo)"
for file in /system/bin/linker64 /system/bin/linker; do [ -e $file ] && bionic=yes; done
for file in /lib*/ld-linux*.so.* /lib/*-linux-gnu*/ld-linux*.so.*; do [ -e "$file" ] && glibc=yes; done
for file in /lib/ld-musl*.so.*; do [ -e "$file" ] && musl=yes; done
[ -n "$glibc" ] && say libc glibc || { [ -n "$bionic" ] && say libc bionic; } || { [ -n "$musl" ] && say libc musl; }
for folder in /data/local/tmp "$HOME" /tmp; do
    if [ -d "$folder" ] && [ -w "$folder" ]; then
        say home "$folder"
        say free_kb "$(df -Pk "$folder" | tail -n 1 | sed 's/^[^ ]* *[0-9]* *[0-9]* *\([0-9]*\) .*/\1/')"
        break
    fi
done
