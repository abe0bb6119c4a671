# The size of the window behind a serial line. Nothing in RS-232 carries it, so it
# comes from the kernel command line (env86.tty=ROWSxCOLUMNS) or from the terminal
# itself, which answers a question about where its cursor is.

# Asks the terminal; call it again after the window has changed.
resize() {
    local saved reply rows columns
    [ -t 0 ] && [ -t 1 ] || return 0
    # Input that is already waiting is someone's commands, not an answer.
    read -t 0 && return 0
    saved=$(stty -g)
    stty -icanon -echo
    # stty may have been fetched from far away, and commands have come meanwhile.
    read -t 0 && { stty "$saved"; return 0; }
    # Save the cursor, go to the far corner, report the position, come back.
    printf '\0337\033[999;999H\033[6n\0338'
    IFS= read -rs -t "${1:-0.3}" -d R reply
    stty "$saved"
    [[ $reply =~ $'\033['([0-9]+)\;([0-9]+)$ ]] || return 0
    rows=${BASH_REMATCH[1]} columns=${BASH_REMATCH[2]}
    [ "$rows" -gt 0 ] && [ "$columns" -gt 0 ] && stty rows "$rows" columns "$columns"
}

if [ -n "$BASH_VERSION" ] && [[ $(tty) == /dev/ttyS* ]]; then
    if [[ $(< /proc/cmdline) =~ env86\.tty=([0-9]+)x([0-9]+) ]]; then
        stty rows "${BASH_REMATCH[1]}" columns "${BASH_REMATCH[2]}"
    else
        resize
    fi
fi
