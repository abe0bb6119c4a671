# What moves the picture: start address, row and byte preset, panning, split screens.
.include "scenes.inc"

main:
    VIDEO 0x0003
    HIDE_CURSOR
    call fill
    # The page from row 30 on, from its sixth line and second character, five dots to the left.
    ADDRESS (80*30)
    REG CRTC, 0x08, 0x20|5
    ATTR 0x13, 4
    SHOW scroll-text

    # Below line 239 the memory's beginning, which is panned, too, and then not.
    BITS CRTC, 0x07, 0x10, 0
    BITS CRTC, 0x09, 0x40, 0
    REG CRTC, 0x18, 239
    SHOW scroll-split
    ATTR 0x10, 0x2c
    SHOW scroll-split-still

    # 320x200 in 16 colours: bars of one byte.
    VIDEO 0x000d
    SEGMENT 0xa000
    xor di, di
    mov bx, 400
1:  mov cx, 40
2:  mov dx, SEQUENCER
    mov ax, bx
    shr ax, 3
    add ax, cx
    and ax, 15
    mov ah, al
    mov al, 2
    out dx, ax
    mov al, 0x7f
    stosb
    loop 2b
    dec bx
    jnz 1b
    ADDRESS (40*150)
    SHOW scroll-planar
    ATTR 0x13, 5
    SHOW scroll-planar-panned
    # Rows of 64 bytes, of which 40 are shown.
    ATTR 0x13, 0
    REG CRTC, 0x13, 32
    SHOW scroll-planar-wide
    REG CRTC, 0x13, 20
    BITS CRTC, 0x07, 0x10, 0x10
    BITS CRTC, 0x09, 0x40, 0
    REG CRTC, 0x18, 301-256
    SHOW scroll-planar-split
    jmp fail

# Rows of their number's letter, with a column of digits.
fill:
    SEGMENT 0xb800
    xor di, di
    mov bx, 0x1741
1:  mov cx, 39
    mov ax, bx
2:  stosw
    mov byte ptr es:[di], '0'
    mov es:[di + 1], bh
    mov dl, cl
    and dl, 3
    add byte ptr es:[di], dl
    inc di
    inc di
    loop 2b
    mov es:[di], ax
    mov es:[di + 2], ax
    add di, 4
    inc bl
    xor bh, 0x30
    cmp bl, 0x41 + 60
    jne 1b
    ret
