# 256 colours: mode 13h, in chained bytes, and the modes of four planes that begin with it.
.include "scenes.inc"

main:
    VIDEO 0x0013
    call chained
    SHOW packed-13h
    mov dx, DAC_MASK
    mov al, 0x1f
    out dx, al
    SHOW packed-mask
    mov dx, DAC_MASK
    mov al, 0xff
    out dx, al
    # The picture from line 40 on, 8 pixels to the left; and panned by one more.
    ADDRESS (40*80+2)
    REG CRTC, 0x12, 319-256   # no more lines than there are in the memory
    SHOW packed-start
    ATTR 0x13, 2
    SHOW packed-panned

    # 320x240 in planes, 25 MHz and 480 lines: bars of a pixel in each plane, and a block by latches.
    VIDEO 0x0013
    call unchain
    mov dx, MISCELLANEOUS
    mov al, 0xe3
    out dx, al
    CRTC_TABLE square
    call planes
    # Below the first page the second: what the latches take over, 120 lines.
    REG SEQUENCER, 2, 0x0f
    REG GRAPHICS, 5, 0x41
    push ds
    mov ax, es
    mov ds, ax
    mov si, 20 * 80 + 10
    mov di, 240 * 80
    mov cx, 120 * 80
    rep movsb
    pop ds
    REG GRAPHICS, 5, 0x40
    SHOW packed-x
    ADDRESS (120*80)
    SHOW packed-x-page
    # Below line 199 the first page again.
    BITS CRTC, 0x07, 0x10, 0
    BITS CRTC, 0x09, 0x40, 0
    REG CRTC, 0x18, 199
    SHOW packed-x-split

    # 360x480: nine characters to eight, and no line twice.
    VIDEO 0x0013
    call unchain
    mov dx, MISCELLANEOUS
    mov al, 0xe7
    out dx, al
    CRTC_TABLE tall
    SEGMENT 0xa000
    xor di, di
    mov bx, 480
1:  REG SEQUENCER, 2, 0x0f
    mov ax, bx
    shr ax, 3
    add al, 0x20
    mov cx, 90
    rep stosb
    # A pixel in four of another colour: a plane's.
    sub di, 90
    mov cx, bx
    and cl, 3
    mov ah, 1
    shl ah, cl
    mov al, 2
    out dx, ax
    mov al, bl
    shr al, 4
    mov cx, 90
    rep stosb
    dec bx
    jnz 1b
    SHOW packed-360x480
    jmp fail

# A pixel is column / 20 + line / 13 * 16.
chained:
    SEGMENT 0xa000
    xor di, di
    xor bx, bx
1:  mov ax, bx
    mov cl, 13
    div cl
    shl al, 4
    mov dl, 16
2:  mov cx, 20
    rep stosb
    inc al
    dec dl
    jnz 2b
    inc bx
    cmp bx, 200
    jne 1b
    ret

# Planes, all of them cleared: the chained bytes that the BIOS has cleared are a part of them.
unchain:
    REG SEQUENCER, 4, 0x06
    REG CRTC, 0x14, 0x00
    REG CRTC, 0x17, 0xe3
    REG SEQUENCER, 2, 0x0f
    SEGMENT 0xa000
    xor di, di
    xor al, al
    mov cx, 0xffff
    rep stosb
    ret

# 240 lines: plane n has colour 32 + line / 4 where the column's bit n is set.
planes:
    SEGMENT 0xa000
    mov bl, 1
1:  mov dx, SEQUENCER
    mov al, 2
    mov ah, bl
    out dx, ax
    xor di, di
    mov bp, 240
2:  xor cx, cx
3:  mov ax, 240 + 240 * 4
    sub ax, bp
    shr ax, 2
    test cl, bl
    jnz 4f
    shr al, 2
4:  stosb
    inc cx
    cmp cx, 80
    jne 3b
    dec bp
    jnz 2b
    shl bl, 1
    cmp bl, 0x10
    jne 1b
    ret

.data
square:
    .byte 0x06, 0x0d, 0x07, 0x3e, 0x09, 0x41, 0x10, 0xea, 0x11, 0x0c, 0x12, 0xdf
    .byte 0x15, 0xe7, 0x16, 0x06, 0xff
tall:
    .byte 0x00, 0x6b, 0x01, 0x59, 0x02, 0x5a, 0x03, 0x8e, 0x04, 0x5e, 0x05, 0x8a, 0x06, 0x0d, 0x07, 0x3e
    .byte 0x09, 0x40, 0x10, 0xea, 0x11, 0x0c, 0x12, 0xdf, 0x13, 0x2d, 0x15, 0xe7, 0x16, 0x06, 0xff
