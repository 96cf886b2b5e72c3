# The store of bundles on a device: functions for a POSIX shell, called by lines that the host appends.
#
#   ROOT/active              the folder in use, and on the second line the one before it
#   ROOT/bundles/NAME/       one bundle, whole: a folder has its name only when every file in it was verified
#   ROOT/bundles/NAME.files  sha256, size, time of change and path of each of its files, with tabs between
#   ROOT/incoming/SHA.part   what has come of a file so far; verified, it is incoming/SHA
tab='	'

settled() { # what was written is on the disk: of this file system where sync can say so, of all otherwise
    sync -f . 2> /dev/null || sync
}

enter() { # ROOT, or nothing: the first place that this user may write
    root=$1
    if [ -z "$root" ]; then
        for folder in /data/local/tmp "${XDG_DATA_HOME:-$HOME/.local/share}" "$HOME" /tmp; do
            [ "$folder" = /data/local/tmp ] || mkdir -p "$folder" 2> /dev/null
            if [ -d "$folder" ] && [ -w "$folder" ]; then root=$folder/edgesdk; break; fi
        done
    fi
    mkdir -p "$root/bundles" "$root/incoming" && cd "$root" || exit 70
}

survey() { # what is here
    echo "@root $(pwd)"
    [ -f active ] && while read -r line; do echo "@active $line"; done < active
    echo "@incoming"
    stat -c '%s %n' incoming/* 2> /dev/null
    echo "@records"
    tail -n +1 bundles/*.files /dev/null 2> /dev/null
    echo "@present"
    find bundles -type f -exec stat -c '%s %Y %n' {} +
    facts
    echo "@end"
}

verified() { # SHA: incoming/SHA.part becomes incoming/SHA if its content is that
    [ -f "incoming/$1" ] && return 0
    set -- "$1" "$(sha256sum "incoming/$1.part")"
    if [ "${2%% *}" = "$1" ]; then mv "incoming/$1.part" "incoming/$1"; return 0; fi
    rm -f "incoming/$1.part"
    return 1
}

check() { # on standard input: hashes of files that came. Prints those that came wrong, and forgets them.
    while read -r sha; do verified "$sha" || echo "@wrong $sha"; done
    echo "@checked"
}

settle() { # NAME; on standard input: hash, size, the file to take and the path to give it, with tabs between
    stage=incoming/$1.stage
    rm -rf "$stage" "$stage.files"
    mkdir -p "$stage" && : > "$stage.files" || exit 71
    while IFS=$tab read -r sha size source path; do
        mkdir -p "$(dirname "$stage/$path")" || exit 71
        ln "$source" "$stage/$path" 2> /dev/null || cp "$source" "$stage/$path" || exit 71
        chmod 644 "$stage/$path"
        [ "$(stat -c %s "$stage/$path")" = "$size" ] || { echo "$source: not $size bytes" >&2; exit 72; }
        printf '%s\t%s\t%s\t%s\n' "$sha" "$size" "$(stat -c %Y "$stage/$path")" "$path" >> "$stage.files" || exit 71
        case $source in incoming/*) used="$used $source" ;; esac
    done
    settled
    rm -rf "bundles/$1" && mv "$stage" "bundles/$1" && mv "$stage.files" "bundles/$1.files" || exit 71
    rm -f $used
    settled
    echo "@settled"
}

activate() { # NAME: from now on in use; what was in use is what a rollback goes to
    [ -d "bundles/$1" ] && [ -f "bundles/$1.files" ] || exit 73
    before=$(head -n 1 active 2> /dev/null)
    [ "$before" = "$1" ] && before=$(sed -n 2p active)
    printf '%s\n%s\n' "$1" "$before" > active.new && settled && mv active.new active && settled || exit 73
    echo "@active $1"
}

verify() { # NAME: prints the paths whose content is not the recorded one
    while IFS=$tab read -r sha size _ path; do
        set -- "$1" "$(sha256sum "bundles/$1/$path" 2> /dev/null)"
        [ "${2%% *}" = "$sha" ] || echo "@wrong $path"
    done < "bundles/$1.files" || exit 74
    echo "@verified"
}

forget() { # NAME...: bundles that go
    for name; do rm -rf "bundles/$name.files" "bundles/$name"; done
}
