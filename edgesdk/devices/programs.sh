# What the scripts for devices need of programs: a stand-in for each that is missing, or its name before anything is sent.
# A small BusyBox has few applets; toybox, BSD and OpenSSL call some by other names.
has() { command -v "$1" > /dev/null 2>&1; }

for program in stat sha256sum find tee sync cat mkdir mv rm cp df; do # as an applet that has no link of its own
    has "$program" && continue
    for box in busybox toybox; do
        has "$box" || continue
        case $("$box" "$program" --help 2>&1 < /dev/null) in
            *[Uu]sage:*) eval "$program() { $box $program \"\$@\"; }" && break ;;
        esac
    done
done

if has sha256sum; then
    hashed() { sha256sum "$@"; } # [FILE]: the hash, and more behind a blank
elif has sha256; then
    hashed() { sha256 -q "$@"; }
elif has shasum; then
    hashed() { shasum -a 256 "$@"; }
elif has openssl; then
    hashed() { openssl dgst -sha256 -r "$@"; }
elif has python3; then
    hashed() { python3 -c 'import hashlib, sys
h = hashlib.sha256()
f = open(sys.argv[1], "rb") if len(sys.argv) > 1 else sys.stdin.buffer
for block in iter(lambda: f.read(1 << 20), b""):
    h.update(block)
print(h.hexdigest())' "$@"; }
fi

if has stat; then
    size_of() { stat -c %s "$1"; } # FILE
    looked() { stat -c '%s %Y %n' "$@" 2> /dev/null; } # FILE...: size, what changes when it is written, and name
else
    size_of() { set -- $(wc -c < "$1") && [ -n "$1" ] && echo "$1"; }
    if has date && [ -n "$(date -r /proc/self/status +%s 2> /dev/null)" ]; then
        changed() { date -r "$1" +%s; }
    else
        changed() { # slower, and surer: 28 bits of its hash
            hash=$(hashed "$1")
            echo "$((0x${hash%"${hash#???????}"}))"
        }
    fi
    looked() {
        for each; do
            [ -f "$each" ] && echo "$(size_of "$each") $(changed "$each") $each"
        done
        :
    }
fi

if has find; then
    files_in() { find "$@" -type f; } # FOLDER...: all files below them, one a line
else
    files_in() {
        for each; do
            for inside in "$each"/* "$each"/.[!.]*; do
                if [ -d "$inside" ] && [ ! -L "$inside" ]; then
                    (files_in "$inside")
                elif [ -f "$inside" ]; then
                    echo "$inside"
                fi
            done
        done
    }
fi

looked_in() { # FOLDER: as looked, of all files below it
    if has find && has stat; then
        find "$1" -type f -exec stat -c '%s %Y %n' {} +
    else
        files_in "$1" | while IFS= read -r found; do looked "$found"; done
    fi
}

if has tee; then
    written() { tee "$1" | hashed; } # FILE: standard input goes into it, and its hash is printed
else
    written() {
        cat > "$1" || { cat > /dev/null; return 1; }
        hashed "$1"
    }
fi

first() { read -r line < "$1" && echo "$line"; } 2> /dev/null # FILE: its first line

second() { { read -r line && read -r line && echo "$line"; } < "$1"; } 2> /dev/null

told() { # FILE...: what is in each, behind a line with its name
    if has tail; then
        tail -n +1 "$@"
    else
        for each; do
            [ -f "$each" ] || [ -c "$each" ] || continue
            echo "==> $each <=="
            cat "$each"
            echo
        done
    fi
}

rooted() { # PATH: with the home folder in the place of ~
    case $1 in
        "~") echo "$HOME" ;;
        "~/"*) echo "$HOME/${1#??}" ;;
        *) echo "$1" ;;
    esac
}

refuse_missing() { # before anything is sent
    missing=''
    for program in cat mkdir mv rm cp; do has "$program" || missing="$missing $program"; done
    has hashed || missing="$missing sha256sum"
    has stat || has wc || missing="$missing stat"
    has sync || has fsync || missing="$missing sync"
    [ -z "$missing" ] && return
    echo "the device lacks programs that a push needs:$missing" >&2
    exit 75
}
