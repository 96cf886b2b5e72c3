# The sampler on the device: one process that reads sensors whenever the host sends a line, and starts no other program
# but the commands that it is told to run. Arguments: files that are read often, --, files that are read seldom, --,
# commands. Time is /proc/uptime (CLOCK_BOOTTIME, to a hundredth of a second), which no change of the wall clock moves.
#
#   f, s   -> f BEFORE VALUE... AFTER      the first word of each file; - where it cannot be read
#   c N    -> c N BEFORE, "| " and a line of what command N prints, ..., e N AFTER
#   p PID  -> p NOW, "| " and the first lines of /proc/stat, then /proc/PID/stat and the sampler's own, ..., q
#   t      -> t, and two lines of CPU time: of this shell, and of what it started
say_command() {
    number=$1
    shift "$number"
    read -r up _ < /proc/uptime
    echo "c $number $up"
    eval "$1" 2> /dev/null < /dev/null | while IFS= read -r line; do echo "| $line"; done
    read -r up _ < /proc/uptime
    echo "e $number $up"
}

read_files() { # KIND FILE...
    line=$1
    shift
    read -r up _ < /proc/uptime
    line="$line $up"
    for path; do
        value=''
        { read -r value _ < "$path"; } 2> /dev/null
        line="$line ${value:--}"
    done
    read -r up _ < /proc/uptime
    echo "$line $up"
}

say_processors() { # PID
    read -r up _ < /proc/uptime
    echo "p $up"
    while IFS= read -r line; do
        case $line in
            cpu*) echo "| $line" ;;
            *) break ;;
        esac
    done < /proc/stat
    for path in "/proc/$1/stat" "/proc/$$/stat"; do
        { IFS= read -r line < "$path"; } 2> /dev/null && echo "| $line"
    done
    echo q
}

often='' seldom=''
while [ "$1" != -- ]; do
    often="$often $1" # paths of sysfs have no spaces
    shift
done
shift
while [ "$1" != -- ]; do
    seldom="$seldom $1"
    shift
done
shift
echo "ready $$"
while read -r what number; do
    case $what in
        f) read_files f $often ;;
        s) read_files s $seldom ;;
        c) say_command "$number" "$@" ;;
        p) say_processors "$number" ;;
        t) echo t && times ;;
    esac
done
