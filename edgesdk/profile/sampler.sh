# The sampler on the device: one process that reads sensors whenever the host sends a line, and starts no other program
# but the commands that it is told to run. Arguments: files, then --, then commands. Time is /proc/uptime (CLOCK_BOOTTIME,
# to a hundredth of a second), which no change of the wall clock moves.
#
#   f      -> f BEFORE VALUE... AFTER      the first word of each file; - where it cannot be read
#   c N    -> c N BEFORE, "| " and a line of what command N prints, ..., e N AFTER
#   t      -> t, and two lines of CPU time: of this shell, and of what it started
say_command() {
    number=$1
    shift "$number"
    read -r up _ < /proc/uptime
    echo "c $number $up"
    eval "$1" 2> /dev/null < /dev/null | while IFS= read -r line; do printf '| %s\n' "$line"; done
    read -r up _ < /proc/uptime
    echo "e $number $up"
}

files=''
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    files="$files $1" # paths of sysfs have no spaces
    shift
done
[ $# -eq 0 ] || shift
echo "ready $$"
while read -r what number; do
    case $what in
        f)
            read -r up _ < /proc/uptime
            line=''
            for path in $files; do
                value=''
                { read -r value _ < "$path"; } 2> /dev/null
                line="$line ${value:--}"
            done
            read -r after _ < /proc/uptime
            echo "f $up$line $after"
            ;;
        c) say_command "$number" "$@" ;;
        t) echo t && times ;;
    esac
done
