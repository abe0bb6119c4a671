# The DAC in 6 and 8 bits.
.include "scenes.inc"

main:
    # 6 bits: 64 greys, reds, greens and blues.
    VIDEO 0x0013
    call columns
    mov dx, DAC_INDEX
    xor al, al
    out dx, al
    inc dx
    mov bx, offset weights
1:  xor cl, cl
2:  mov ch, 0
3:  xor al, al
    test byte ptr [bx], 1
    jz 4f
    mov al, cl
4:  ror byte ptr [bx], 1
    out dx, al
    inc ch
    cmp ch, 3
    jne 3b
    ror byte ptr [bx], 5
    inc cl
    cmp cl, 64
    jne 2b
    inc bx
    cmp bx, offset weights + 4
    jne 1b
    SHOW dac-6
    # What was written is read back, and written to the next register.
    mov cx, 255
1:  mov dx, DAC_INDEX - 1
    mov al, cl
    dec al
    out dx, al
    mov dx, DAC_DATA
    in al, dx
    mov bl, al
    in al, dx
    mov bh, al
    in al, dx
    mov ah, al
    dec dx
    mov al, cl
    out dx, al
    inc dx
    mov al, ah
    out dx, al
    mov al, bh
    out dx, al
    mov al, bl
    out dx, al
    loop 1b
    SHOW dac-6-read

    # 8 bits, by VBE.
    mov bx, 0x0100
    VBE 0x4f02
    mov bx, 0x0800
    VBE 0x4f08
    call vbe_columns
    mov dx, DAC_INDEX
    xor al, al
    out dx, al
    inc dx
    xor cx, cx
1:  mov al, cl
    out dx, al
    not al
    out dx, al
    mov al, cl
    rol al, 3
    out dx, al
    inc cl
    jnz 1b
    SHOW dac-8
    jmp fail

# 320x200: colour is the column, in 256 of them; the last colour beside.
columns:
    SEGMENT 0xa000
    xor di, di
    mov bx, 200
1:  xor ax, ax
2:  stosb
    inc al
    jnz 2b
    mov al, 0xff
    mov cx, 64
    rep stosb
    dec bx
    jnz 1b
    ret

# 640x400, the first bank: colour is the column.
vbe_columns:
    SEGMENT 0xa000
    xor di, di
    mov bx, 100
1:  mov cx, 640
    xor ax, ax
2:  stosb
    inc al
    loop 2b
    dec bx
    jnz 1b
    ret

.data
weights: .byte 7, 1, 2, 4
