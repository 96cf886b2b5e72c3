# The store of bundles on a device: functions for a POSIX shell, called by lines that the host appends.
#
#   ROOT/active              the folder in use, and on the second line the one before it
#   ROOT/bundles/NAME/       one bundle, whole: a folder has its name only when every file in it was verified
#   ROOT/bundles/NAME.files  sha256, size, time of change and path of each of its files, with tabs between
#   ROOT/incoming/SHA.part   what has come of a file so far; verified, it is incoming/SHA
tab='	'

flushed() { # what was written to these files and folders is on the disk; to all of them where no program says less
    find "$@" -exec fsync {} + 2> /dev/null || find "$@" -exec sync {} + 2> /dev/null || sync
}

enter() { # ROOT, or nothing: the first place that this user may write
    refuse_missing
    root=$(rooted "$1")
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
    looked incoming/*
    echo "@records"
    told bundles/*.files /dev/null 2> /dev/null
    echo "@present"
    looked_in bundles
    facts
    echo "@end"
}

verified() { # SHA SEEN: incoming/SHA.part becomes incoming/SHA if its content is that; SEEN is the hash of what came, or -
    [ -f "incoming/$1.part" ] || { [ -f "incoming/$1" ]; return; }
    [ "$2" = - ] && set -- "$1" "$(hashed "incoming/$1.part")"
    if [ "${2%% *}" = "$1" ]; then mv "incoming/$1.part" "incoming/$1"; return 0; fi
    rm -f "incoming/$1.part"
    return 1
}

settle() { # NAME; on standard input: hash, size, take or keep, hash seen, the file and the path to give it, with tabs
    # What came is hashed first: what came wrong is printed and forgotten, and then nothing is settled.
    rows=incoming/$1.rows wrong='' used=''
    cat > "$rows" || exit 71
    flushed incoming # before a name says that it is verified
    while IFS=$tab read -r sha size how seen source path; do
        case $source in incoming/*) verified "$sha" "$seen" || wrong="$wrong $sha" ;; esac
    done < "$rows"
    if [ -n "$wrong" ]; then
        for sha in $wrong; do echo "@wrong $sha"; done
        return
    fi
    stage=incoming/$1.stage
    rm -rf "$stage" "$stage.files"
    mkdir -p "$stage" && : > "$stage.files" || exit 71
    while IFS=$tab read -r sha size how seen source path; do
        case $path in */*) mkdir -p "$stage/${path%/*}" || exit 71 ;; esac
        if ln "$source" "$stage/$path" 2> /dev/null; then
            :
        elif [ "$how" = take ]; then # where there are no hard links: the last that needs it has it
            mv "$source" "$stage/$path" || exit 71
        else
            cp "$source" "$stage/$path" || exit 71
        fi
        found=$(looked "$stage/$path")
        [ "${found%% *}" = "$size" ] || { echo "$source: not $size bytes" >&2; exit 72; }
        found=${found#* }
        echo "$sha$tab$size$tab${found%% *}$tab$path" >> "$stage.files" || exit 71
        case $source in incoming/*) used="$used $source" ;; esac
    done < "$rows"
    if has chmod; then files_in "$stage" | while IFS= read -r each; do chmod 644 "$each"; done; fi
    flushed "$stage" "$stage.files"
    rm -rf "bundles/$1" && mv "$stage" "bundles/$1" && mv "$stage.files" "bundles/$1.files" || exit 71
    rm -f $used "$rows"
    echo "@settled"
}

activate() { # NAME: from now on in use; what was in use is what a rollback goes to
    [ -d "bundles/$1" ] && [ -f "bundles/$1.files" ] || exit 73
    before=$(first active)
    [ "$before" = "$1" ] && before=$(second active)
    { echo "$1" && echo "$before"; } > active.new && flushed active.new && mv active.new active || exit 73
    find . bundles -maxdepth 0 -exec fsync {} + 2> /dev/null || sync
    echo "@active $1"
}

verify() { # NAME: prints the paths whose content is not the recorded one
    unseen=''
    while IFS=$tab read -r sha size _ path; do
        set -- "$1" "$(hashed "bundles/$1/$path" 2> /dev/null)"
        [ "${2%% *}" = "$sha" ] && continue
        echo "@wrong $path"
        touch -t 197001010000 "bundles/$1/$path" 2> /dev/null || unseen=1 # the next push sees that it is another
    done < "bundles/$1.files" || exit 74
    if [ -n "$unseen" ]; then # by the record then
        while IFS=$tab read -r sha size _ path; do
            echo "$sha$tab$size${tab}0$tab$path"
        done < "bundles/$1.files" > "bundles/$1.stale" && mv "bundles/$1.stale" "bundles/$1.files"
    fi
    echo "@verified"
}

forget() { # NAME...: bundles that go
    for name; do rm -rf "bundles/$name.files" "bundles/$name"; done
}
