# VBE: 4 to 32 bits a pixel, banks and the linear window, a wider picture than is shown, and the registers
# themselves.
.include "scenes.inc"

.set DISPI, 0x1ce
.set LINEAR, 0x4000
# What the BIOS says about a mode, and where the linear window's address is in it.
.set INFO, 0xe000
.set PHYSICAL, INFO + 40

.macro DISPI_REG index, value
    mov dx, DISPI
    mov ax, \index
    out dx, ax
    inc dx
    mov ax, \value
    out dx, ax
.endm

main:
    call big_real
    # 640x400 by banks: a pixel is its place.
    mov bx, 0x0100
    VBE 0x4f02
    mov word ptr [width], 640
    mov word ptr [height], 400
    mov byte ptr [bytes], 1
    call banked
    SHOW vbe-8

    mov word ptr [width], 320
    mov word ptr [height], 200
    mov byte ptr [bytes], 2
    mov bx, 0x010d
    VBE 0x4f02
    call banked
    SHOW vbe-15
    mov bx, 0x010e | LINEAR
    call linear
    SHOW vbe-16
    mov bx, 0x010f
    mov byte ptr [bytes], 3
    VBE 0x4f02
    call banked
    SHOW vbe-24
    mov bx, 0x0140 | LINEAR
    mov byte ptr [bytes], 4
    call linear
    SHOW vbe-32

    # Four planes, of one bank each and of two.
    mov bx, 0x0102
    VBE 0x4f02
    mov word ptr [width], 800 / 8
    mov word ptr [height], 600
    call planes
    SHOW vbe-4
    mov bx, 0x0104
    VBE 0x4f02
    mov word ptr [width], 1024 / 8
    mov word ptr [height], 768
    call planes
    SHOW vbe-4-banks

    # 512 pixels a line, of which the picture begins at (100, 60).
    mov bx, 0x010e
    mov byte ptr [bytes], 2
    VBE 0x4f02
    mov bx, 0
    mov cx, 512
    VBE 0x4f06
    mov word ptr [width], 512
    mov word ptr [height], 300
    call banked
    mov bx, 0
    mov cx, 100
    mov dx, 60
    VBE 0x4f07
    SHOW vbe-virtual

    # A mode that no BIOS lists, by the registers: 400x300 in 32 bits, the memory as it was.
    DISPI_REG 4, 0
    DISPI_REG 1, 400
    DISPI_REG 2, 300
    DISPI_REG 3, 32
    DISPI_REG 4, 0xc1
    mov word ptr [width], 400
    mov word ptr [height], 300
    mov byte ptr [bytes], 4
    call fill_linear
    SHOW dispi-400x300
    # 440 pixels a line from here on: what was drawn is shown aslant.
    DISPI_REG 6, 440
    DISPI_REG 8, 8
    DISPI_REG 9, 10
    SHOW dispi-offset
    # Back to text, which was not touched.
    DISPI_REG 4, 0
    VIDEO 0x0003
    HIDE_CURSOR
    SEGMENT 0xb800
    mov di, 2 * 80 * 12
    mov ax, 0x1f54
    mov cx, 80
    rep stosw
    SHOW dispi-text
    jmp fail

# Gives FS the limit of 4 GiB.
big_real:
    cli
    lgdt [gdtr]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    mov bx, 8
    mov fs, bx
    and al, 0xfe
    mov cr0, eax
    xor ax, ax
    mov fs, ax
    sti
    ret

# Sets mode BX and fills it through the linear window.
linear:
    push bx
    mov cx, bx
    and cx, 0x1ff
    mov ax, ds
    mov es, ax
    mov di, INFO
    VBE 0x4f01
    pop bx
    VBE 0x4f02
fill_linear:
    mov edi, [PHYSICAL]
    mov dword ptr [put], offset put_linear
    jmp pixels

banked:
    SEGMENT 0xa000
    xor edi, edi
    mov word ptr [bank], 0
    call set_bank
    mov dword ptr [put], offset put_banked
# Pixels from the first on, by lines: of 1 byte, its place in squares; of two, 8 x 4 of them have one value; of
# more, red, green and blue are sums of the place.
pixels:
    xor bp, bp                  # line
1:  xor bx, bx                  # column
2:  mov ax, bp
    shr ax, 2
    shl ax, 6
    mov dx, bx
    shr dx, 3
    add ax, dx
    cmp byte ptr [bytes], 2
    je 3f
    ja 4f
    mov ax, bx
    shr ax, 3
    add ax, bp
    and al, 0xfc
    call [put]
    jmp 5f
3:  call [put]
    mov al, ah
    call [put]
    jmp 5f
4:  mov al, bl
    and al, 0xf8
    call [put]
    mov ax, bp
    and al, 0xfc
    call [put]
    mov ax, bp
    add ax, bx
    and al, 0xf0
    call [put]
    cmp byte ptr [bytes], 3
    je 5f
    mov al, 0
    call [put]
5:  inc bx
    cmp bx, [width]
    jne 2b
    inc bp
    cmp bp, [height]
    jne 1b
    ret

# Colours in planes by write mode 2, with what is in the latches in every second dot of each sixteenth line; the width is
# in bytes of a plane.
planes:
    SEGMENT 0xa000
    xor edi, edi
    mov word ptr [bank], 0
    call set_bank
    mov dx, GRAPHICS
    mov ax, 0x0205              # write mode 2
    out dx, ax
    xor bp, bp                  # line
1:  xor bx, bx                  # column
    mov ax, 0xff08              # bit mask
    test bp, 15
    jnz 2f
    mov ax, 0xaa08
2:  mov dx, GRAPHICS
    out dx, ax
3:  mov ax, bp
    shr ax, 4
    mov cx, bx
    shr cx, 2
    add ax, cx
    mov cl, es:[di]             # the latches
    call put_banked
    inc bx
    cmp bx, [width]
    jne 3b
    inc bp
    cmp bp, [height]
    jne 1b
    mov dx, GRAPHICS
    mov ax, 0x0005
    out dx, ax
    mov ax, 0xff08
    out dx, ax
    ret

put_banked:
    mov es:[di], al
    inc di
    jz 1f
    ret
1:  inc word ptr [bank]
set_bank:
    pushad
    mov bx, 0
    mov dx, [bank]
    VBE 0x4f05
    popad
    ret

put_linear:
    mov fs:[edi], al
    inc edi
    ret

.data
.balign 8
gdt:
    .quad 0
    .quad 0x00cf93000000ffff
gdtr:
    .word 15
    .long gdt
width: .word 0
height: .word 0
bank: .word 0
bytes: .word 0
put: .long 0
