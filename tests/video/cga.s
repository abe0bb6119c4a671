# CGA's graphics: four colours and two, in two banks of lines.
.include "scenes.inc"

main:
    VIDEO 0x0004
    call fill
    SHOW cga-4
    mov bx, 0x0100              # the other palette
    mov ah, 0x0b
    int 0x10
    mov bx, 0x0001              # a blue background
    mov ah, 0x0b
    int 0x10
    SHOW cga-4-palette
    VIDEO 0x0005
    call fill
    SHOW cga-4-grey
    VIDEO 0x0006
    call fill
    SHOW cga-2
    jmp fail

# Bars whose height and width differ in the two banks, and a line by the BIOS.
fill:
    SEGMENT 0xb800
    xor di, di
    mov bx, 0
1:  mov al, 0x1b
    test bx, 0x10
    jz 2f
    mov al, 0xe4
2:  mov cx, 80
    rep stosb
    mov cx, 80
    sub di, 80
    add di, 0x2000
    mov al, 0x00
3:  stosb
    not al
    loop 3b
    sub di, 0x2000
    inc bx
    cmp bx, 100
    jne 1b
    mov cx, 199
4:  mov dx, cx
    mov bh, 0
    mov ax, 0x0c02
    int 0x10
    loop 4b
    ret
