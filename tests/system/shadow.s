# The first sector of a hard disk: writes to C0000h to FFFFFh, 16 KiB at a time, as DOS programs do that look for
# upper memory, and tells over COM1 what is RAM (w) and what stays as it is (-): as the BIOS leaves it, with all of it
# made writable at the host bridge, and with the last 64 KiB read-only. There the BIOS is to read a sector, at the end.
.intel_syntax noprefix
.code16

.set HERE, 0x7c00
.set COM1, 0x3f8
.set EXIT, 0xf4
.set PLACE, 0x8000              # in the BIOS' segment

start:
    cli
    xor ax, ax
    mov ds, ax
    mov ss, ax
    mov sp, HERE
    mov bp, dx                  # DL is the disk
    call probe
    mov di, offset writable + HERE
    call attributes
    call probe
    mov di, offset locked + HERE
    call attributes
    call probe

    mov ax, 0xf000
    mov es, ax
    mov si, es:[PLACE]
    mov ax, 0x0201              # read one sector
    mov cx, 0x0001              # cylinder 0, sector 1: this one
    mov dx, bp
    mov dh, 0                   # head 0
    mov bx, PLACE
    sti
    int 0x13
    cli
    mov al, 'e'
    jc 1f
    mov al, 'k'                 # kept
    cmp es:[PLACE], si
    je 1f
    mov al, 'l'                 # lost
1:  call say
    mov al, 10
    call say
    mov al, 7
    out EXIT, al
    hlt

# A line of 16 letters.
probe:
    mov bx, 0xc000
1:  mov es, bx
    mov si, es:[0]
    not word ptr es:[0]
    mov al, '-'
    cmp es:[0], si
    je 2f
    mov al, 'w'
2:  mov es:[0], si
    call say
    add bx, 0x400
    jnc 1b
    mov al, 10
say:
    mov dx, COM1
    out dx, al
    ret

# Writes the eight bytes at DI to the host bridge's registers from 58h on.
attributes:
    mov ecx, 0x80000058
1:  mov eax, ecx
    mov dx, 0xcf8
    out dx, eax
    mov eax, [di]
    mov dx, 0xcfc
    out dx, eax
    add di, 4
    add cl, 4
    cmp cl, 0x60
    jne 1b
    ret

writable:
    .byte 0, 0x30, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33
locked:
    .byte 0, 0x10, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33

.org 510
.byte 0x55, 0xaa
