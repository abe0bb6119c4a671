# What changes while the beam is in the picture. A frame is as it should be if the guest was not interrupted in it, by
# the host either.
.include "scenes.inc"

main:
    # Colour 0 is another every eight lines at the picture's top. Few lines, so that many frames are as they should be.
    VIDEO 0x0013
    SEGMENT 0xa000
    mov di, 320 * 60
    mov al, 15
    mov cx, 320 * 20
    rep stosb
    mov si, offset bars
    call say
    cli
1:  call retrace_begins
    xor ax, ax
    call color_0
    call picture_begins
    xor bx, bx
2:  mov cx, 8
    call lines
    mov al, bl
    shl al, 3
    inc al
    mov ah, bl
    not ah
    shl ah, 2
    call color_0
    inc bx
    cmp bx, 8
    jne 2b
    call answered
    jz 1b
    sti

    # A start address that is another only while the beam is in the picture: the CRT controller takes over the
    # one that is there when the picture ends.
    VIDEO 0x000d
    SEGMENT 0xa000
    xor di, di
    mov al, 0xf0
    mov cx, 8000
    rep stosb
    mov al, 0x03
    mov cx, 8000
    rep stosb
    mov si, offset start_address
    call say
    cli
1:  call retrace_begins
    call picture_begins
    mov cx, 100
    call lines
    ADDRESS (8000)
    mov cx, 250
    call lines
    ADDRESS (4000)
    call answered
    jz 1b
    sti
    jmp fail

retrace_begins:
    mov dx, STATUS
1:  in al, dx
    test al, 8
    jz 1b
    ret

# Waits until the beam is at the first line of the picture.
picture_begins:
    mov dx, STATUS
1:  in al, dx
    test al, 1
    jnz 1b
    ret

# Waits until CX more lines have been shown: the beam is behind the last one.
lines:
    mov dx, STATUS
1:  in al, dx
    test al, 1
    jnz 1b
2:  in al, dx
    test al, 1
    jz 2b
    loop 1b
    ret

# Red of AL, green of AH.
color_0:
    push ax
    mov dx, DAC_INDEX
    xor al, al
    out dx, al
    inc dx
    pop ax
    out dx, al
    mov al, ah
    out dx, al
    xor al, al
    out dx, al
    ret

.data
bars: .asciz "beam-bars\n"
start_address: .asciz "beam-start\n"
