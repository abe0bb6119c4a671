# 16 colours in four planes: write modes, functions, masks, latches, read modes; other sizes of picture.
.include "scenes.inc"

.set PITCH, 80
# Bytes of 60 lines, of which each step has its own.
.set BAND, 60 * PITCH

# Writes a value to bytes from ES:DI on, each of which is read first, into the latches.
.macro LATCHED count, value
    mov cx, \count
1:  mov al, es:[di]
    mov al, \value
    stosb
    loop 1b
.endm

main:
    VIDEO 0x0012
    SEGMENT 0xa000
    # Write mode 0, set/reset: bars of five bytes.
    REG GRAPHICS, 1, 0x0f
    xor di, di
    call bars
    # Write mode 0: data rotated by three and XORed with the latches, in some of the bits.
    mov di, BAND
    call bars
    REG GRAPHICS, 1, 0
    REG GRAPHICS, 3, 0x18 | 3
    REG GRAPHICS, 8, 0xfc
    mov di, BAND + 10 * PITCH
    LATCHED 20*PITCH, 0x1f
    # AND, and OR, in two planes.
    REG SEQUENCER, 2, 0x05
    REG GRAPHICS, 3, 0x08
    LATCHED 10*PITCH, 0x3c
    REG GRAPHICS, 3, 0x10
    LATCHED 10*PITCH, 0x3c
    REG SEQUENCER, 2, 0x0f
    REG GRAPHICS, 3, 0
    REG GRAPHICS, 8, 0xff
    # Write mode 1: the bars, three bytes further to the right.
    REG GRAPHICS, 5, 1
    push ds
    mov ax, es
    mov ds, ax
    xor si, si
    mov di, 2 * BAND + 3
    mov cx, 50 * PITCH
    rep movsb
    pop ds
    # Write mode 2: the data is the colour, in the mask's bits.
    REG GRAPHICS, 5, 2
    REG GRAPHICS, 8, 0x7e
    mov di, 3 * BAND
    mov cx, 50 * PITCH
1:  mov al, es:[di]
    mov ax, cx
    shr ax, 2
    stosb
    loop 1b
    # Write mode 3: set/reset in the bits that both data and mask have, over what was there.
    REG GRAPHICS, 5, 0
    REG GRAPHICS, 8, 0xff
    REG GRAPHICS, 1, 0x0f
    mov di, 4 * BAND
    call bars
    REG GRAPHICS, 5, 3
    REG GRAPHICS, 0, 0x0e
    REG GRAPHICS, 3, 2
    REG GRAPHICS, 8, 0x3f
    mov di, 4 * BAND + 10 * PITCH
    LATCHED 40*PITCH, 0xc3
    # Read mode 0: each plane of the bars as white on black, 15 lines of each.
    REG GRAPHICS, 3, 0
    REG GRAPHICS, 8, 0xff
    REG GRAPHICS, 5, 0
    REG GRAPHICS, 1, 0
    mov di, 5 * BAND
    xor bx, bx
1:  mov dx, GRAPHICS
    mov al, 4
    mov ah, bl
    out dx, ax
    mov cx, 15
2:  xor si, si
    mov dx, PITCH
3:  mov al, es:[si]
    inc si
    stosb
    dec dx
    jnz 3b
    loop 2b
    inc bx
    cmp bx, 4
    jne 1b
    # Read mode 1: where the bars have colour 6 or 7, and where they have colour 5.
    REG GRAPHICS, 5, 8
    REG GRAPHICS, 2, 6
    REG GRAPHICS, 7, 0x0e
    call compare
    REG GRAPHICS, 2, 5
    REG GRAPHICS, 7, 0x0f
    call compare
    # Bytes of single planes.
    REG GRAPHICS, 5, 0
    mov di, 7 * BAND
    mov bx, 0x0801
1:  mov dx, SEQUENCER
    mov al, 2
    mov ah, bl
    out dx, ax
    push di
    mov al, 0x35
    mov cx, 50 * PITCH
    rep stosb
    pop di
    add di, 10 * PITCH
    shl bl, 1
    cmp bl, 0x10
    jne 1b
    SHOW planar-640x480

    # Planes that are not shown, and colours of the palette's own.
    ATTR 0x12, 0x0b
    ATTR 0x03, 0x38
    SHOW planar-planes

    VIDEO 0x0010
    call few
    SHOW planar-640x350
    VIDEO 0x000e
    call few
    SHOW planar-640x200
    VIDEO 0x0011
    call few
    SHOW planar-2
    VIDEO 0x000f
    call few
    SHOW planar-mono
    jmp fail

compare:
    mov cx, 30
1:  xor si, si
    mov dx, PITCH
2:  mov al, es:[si]
    inc si
    stosb
    dec dx
    jnz 2b
    loop 1b
    ret

# 50 lines of 16 bars from DI on, by set/reset, which every write of a byte gives.
bars:
    mov bp, 50
1:  xor bx, bx
2:  mov dx, GRAPHICS
    mov al, 0
    mov ah, bl
    out dx, ax
    mov cx, PITCH / 16
    rep stosb
    inc bx
    cmp bx, 16
    jne 2b
    dec bp
    jnz 1b
    ret

# Bars at the picture's beginning.
few:
    SEGMENT 0xa000
    REG GRAPHICS, 1, 0x0f
    mov di, 10 * PITCH
    call bars
    REG GRAPHICS, 1, 0
    ret
