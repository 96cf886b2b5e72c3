# What a device says about itself, raw: the host reads it (facts.py). The device has sh and little else, and starting a
# program takes long on some, so there are few of them.
facts() {
    if has uname; then
        echo "@uname $(uname -srm)"
    else # the architecture is not known there, before Linux 6.1
        echo "@uname $(first /proc/sys/kernel/ostype) $(first /proc/sys/kernel/osrelease) $(first /proc/sys/kernel/arch)"
    fi
    command -v getprop > /dev/null 2>&1 && getprop | while read -r line; do echo "@property $line"; done
    echo "@libraries" /system/bin/linker* /lib*/ld-linux*.so.* /lib/*-linux-gnu*/ld-linux*.so.* /lib/ld-musl*.so.*
    for folder in /data/local/tmp "$HOME" /tmp; do
        if [ -d "$folder" ] && [ -w "$folder" ]; then
            echo "@home $folder"
            break
        fi
    done
    echo "@df"
    { df -Pk "$(rooted "${root:-$folder}")" || df -Pk "$folder"; } 2> /dev/null
    echo "@files"
    told /proc/meminfo /proc/cpuinfo /etc/os-release /sys/class/dmi/id/product_name /proc/device-tree/model \
        /proc/device-tree/compatible 2> /dev/null
    echo
    echo "@facts"
}
