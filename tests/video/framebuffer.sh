# In Linux: shows a picture on the frame buffer /dev/fb0, first by its console, then by itself. tests/tests/framebuffer.rs
# knows what both are to be.
fb=/sys/class/graphics/fb0
bits=$(cat $fb/bits_per_pixel) stride=$(cat $fb/stride)
IFS=, read -r width height < $fb/virtual_size
rm -rf /tmp/picture && mkdir /tmp/picture && cd /tmp/picture

# A console that nothing else writes to: cells with a blue and a red ground and no cursor.
dmesg -n 1
chvt 5
printf '\033[?25l\033[2J\033[H\033[44m  \033[41m  \033[0m' > /dev/tty5
echo "console on $(cat $fb/name), $width by $height with $bits bits"
read -r go

# What a byte to this port, and the next to the one behind it, are.
port() { printf "$2" | dd of=/dev/port bs=1 seek=$(($1)) conv=notrunc status=none; }
twice() { cat "$1" "$1" > twice && mv twice "$1"; }
# Squares of 32 dots in eight colours, whose bits are red, green and blue. The bytes of 32 dots of each come first;
# with four bits they are one plane's.
picture() {
    for color in 0 1 2 3 4 5 6 7; do
        r=$((color >> 2)) g=$((color >> 1 & 1)) b=$((color & 1)) times=5
        case $bits in
            4) set -- $(((color >> plane & 1) * 255)) && times=2 ;;
            8) set -- $color ;;
            16) set -- $((b * 31 + (g * 7 << 5))) $((g * 7 + (r * 31 << 3))) ;;
            24) set -- $((b * 255)) $((g * 255)) $((r * 255)) ;;
            32) set -- $((b * 255)) $((g * 255)) $((r * 255)) 0 ;;
        esac
        printf "$(printf '\\%03o' "$@")" > color$color
        for time in $(seq $times); do twice color$color; done
    done
    for first in 0 1 2 3 4 5 6 7; do
        files=''
        for square in $(seq 0 $((width / 32 - 1))); do files="$files color$(((square + first) % 8))"; done
        cat $files > row$first
        head -c $((stride - $(stat -c %s row$first))) /dev/zero >> row$first
        for time in 1 2 3 4 5; do twice row$first; done
    done
    files=''
    for row in $(seq 0 $(((height + 31) / 32 - 1))); do files="$files row$((row * 3 % 8))"; done
    # In one piece: of several writes, Linux 6.1 shows but some rows on bochs-drm, on whatever machine.
    cat $files | dd of=/dev/fb0 bs=$((stride * height)) count=1 iflag=fullblock status=none
}
if [ "$bits" = 4 ]; then
    # A plane at a time: no set/reset, no function, write mode 0, all bits.
    port 0x3ce '\001\000' && port 0x3ce '\003\000' && port 0x3ce '\005\000' && port 0x3ce '\010\377'
    for plane in 0 1 2 3; do
        port 0x3c4 "\\002$(printf '\\%03o' $((1 << plane)))"
        picture
    done
else
    picture
fi
echo picture shown
