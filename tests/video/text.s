# Text modes: nine dots a character, fonts, cursor, blinking, 40, 80 and 132 columns, 25 and 50 rows.
.include "scenes.inc"

main:
    VIDEO 0x0003
    HIDE_CURSOR
    call fill
    SHOW text-80x25

    # The same with eight dots: nothing between the characters.
    BITS SEQUENCER, 1, 1, 1
    ATTR 0x13, 0
    SHOW text-8-dots

    # Bit 7 is a colour of the background.
    VIDEO 0x0003
    HIDE_CURSOR
    mov bl, 0
    VIDEO 0x1003
    call bright
    SHOW text-bright
    mov bl, 1
    VIDEO 0x1003
    SHOW text-blink

    # A cursor of lines 4 to 11 on a character that the picture shows, too.
    VIDEO 0x0003
    SEGMENT 0xb800
    mov word ptr es:[2 * (80 * 2 + 5)], 0x1e45
    mov ah, 2
    mov bh, 0
    mov dx, 0x0205
    int 0x10
    REG CRTC, 0x0a, 4
    REG CRTC, 0x0b, 11
    SHOW text-cursor

    # Two fonts: the one of 8x8 dots in the second block, for characters of attribute bit 3, which is no colour then.
    VIDEO 0x0003
    HIDE_CURSOR
    mov bl, 1
    VIDEO 0x1102
    mov bl, 0x04
    VIDEO 0x1103
    ATTR 0x12, 0x07
    call fill
    SHOW text-fonts

    VIDEO 0x0003
    mov bl, 0
    VIDEO 0x1112
    HIDE_CURSOR
    call fill
    SEGMENT 0xb800
    mov di, 2 * 80 * 49
    mov ax, 0x4f31
    mov cx, 80
    rep stosw
    SHOW text-80x50

    VIDEO 0x0001
    HIDE_CURSOR
    call fill
    SHOW text-40x25

    # What the monochrome card has: the window at B0000h, and an attribute that underlines.
    VIDEO 0x0003
    HIDE_CURSOR
    REG GRAPHICS, 6, 0x0a
    REG CRTC, 0x14, 13
    SEGMENT 0xb000
    xor di, di
    mov ax, 0x0720
    mov cx, 80 * 25
    rep stosw
    mov di, 2 * 80 * 2
    mov si, offset mono
1:  lodsb
    test al, al
    jz 2f
    mov ah, al
    mov al, 0x4d
    mov cx, 10
    rep stosw
    jmp 1b
2:  SHOW text-underline

    VIDEO 0x0003
    HIDE_CURSOR
    CRTC_TABLE wide
    BITS SEQUENCER, 1, 1, 1
    ATTR 0x13, 0
    call fill
    SEGMENT 0xb800
    mov di, 2 * 132 * 24
    mov ax, 0x4f32
    mov cx, 132
    rep stosw
    SHOW text-132x25
    jmp fail

# All characters, and all colours without the blinking ones.
fill:
    SEGMENT 0xb800
    xor di, di
    mov ax, 0x0700
1:  stosw
    inc al
    jnz 1b
    mov di, 2 * 80 * 6
    mov ax, 0x0052
2:  stosw
    inc ah
    jns 2b
    ret

# Characters of all attributes with bit 7.
bright:
    SEGMENT 0xb800
    mov di, 2 * 80 * 3
    mov ax, 0x8042
1:  stosw
    inc ah
    jnz 1b
    ret

.data
mono: .byte 0x07, 0x01, 0x0f, 0x09, 0x70, 0
# 132 characters a line.
wide: .byte 0, 0x9b, 1, 0x83, 2, 0x84, 3, 0x9e, 4, 0x8a, 5, 0x9c, 0x13, 0x42, 0xff
