# The first sector of a hard disk, which a BIOS starts: reads the two behind it, one by block, one by
# cylinder, head and sector, sends their texts over COM1 and ends the program with 7.
.intel_syntax noprefix
.code16

.set HERE, 0x7c00
.set BLOCK, 0x8000
.set SECTOR, 0x9000
.set COM1, 0x3f8
.set EXIT, 0xf4

start:
    cli
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, HERE
    sti
    mov bp, dx                  # DL is the disk
    mov ah, 0x42                # extended read
    mov si, offset packet + HERE
    int 0x13
    mov al, 1
    jc done
    mov ax, 0x0201              # read one sector
    mov cx, 0x0003              # cylinder 0, sector 3
    mov dx, bp
    mov dh, 0                   # head 0
    mov bx, SECTOR
    int 0x13
    mov al, 2
    jc done
    mov si, BLOCK
    call say
    mov si, SECTOR
    call say
    mov al, 7
done:
    out EXIT, al
    hlt

say:
    lodsb
    test al, al
    jz 1f
    mov dx, COM1
    out dx, al
    jmp say
1:  ret

.balign 4
packet:
    .byte 16, 0
    .word 1                     # one block
    .word BLOCK, 0
    .quad 1                     # the second of the disk

.org 510
.byte 0x55, 0xaa
