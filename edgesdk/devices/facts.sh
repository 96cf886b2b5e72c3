# What a device says about itself, raw: the host reads it (facts.py). The device has sh and little else, and starting a
# program takes long on some, so there are few of them.
facts() {
    echo "@uname $(uname -srm)"
    command -v getprop > /dev/null 2>&1 && getprop | while read -r line; do echo "@property $line"; done
    echo "@libraries" /system/bin/linker* /lib*/ld-linux*.so.* /lib/*-linux-gnu*/ld-linux*.so.* /lib/ld-musl*.so.*
    for folder in /data/local/tmp "$HOME" /tmp; do
        if [ -d "$folder" ] && [ -w "$folder" ]; then
            echo "@home $folder"
            break
        fi
    done
    echo "@df"
    df -Pk "${root:-$folder}" 2> /dev/null || df -Pk "$folder"
    echo "@files"
    tail -n +1 /proc/meminfo /proc/cpuinfo /etc/os-release /sys/class/dmi/id/product_name /proc/device-tree/model \
        /proc/device-tree/compatible 2> /dev/null
    echo
    echo "@facts"
}
