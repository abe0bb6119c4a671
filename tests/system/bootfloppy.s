# The first sector of a floppy disk, which a BIOS starts: reads a sector on the other side, writes it to
# the last one of the disk, reads that back, sends its text over COM1 and ends the program with 7.
.intel_syntax noprefix
.code16

.set HERE, 0x7c00
.set FIRST, 0x8000
.set SECOND, 0x9000
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
    mov bp, dx                  # DL is the drive
    mov ax, 0x0201              # read a sector: cylinder 0, head 1, sector 1
    mov cx, 0x0001
    mov dh, 1
    mov bx, FIRST
    int 0x13
    mov al, 1
    jc done
    mov ax, 0x0301              # write it: cylinder 79, head 1, sector 18
    mov cx, 0x4f12
    mov dx, bp
    mov dh, 1
    mov bx, FIRST
    int 0x13
    mov al, 2
    jc done
    mov ax, 0x0201              # read it back
    mov cx, 0x4f12
    mov dx, bp
    mov dh, 1
    mov bx, SECOND
    int 0x13
    mov al, 3
    jc done
    mov si, SECOND
say:
    lodsb
    test al, al
    jz 1f
    mov dx, COM1
    out dx, al
    jmp say
1:  mov al, 7
done:
    out EXIT, al
    hlt

.org 510
.byte 0x55, 0xaa
