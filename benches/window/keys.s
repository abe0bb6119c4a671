# A Multiboot kernel that makes the text screen grey or black, the other at each key that goes down.
        .intel_syntax noprefix
        .include "multiboot.inc"

start:  xor ebp, ebp
show:   mov edi, 0xb8000
        mov ecx, 80 * 25 / 2
        mov eax, 0x00200020
        test ebp, ebp
        jz fill
        mov eax, 0x70207020
fill:   rep stosd
wait:   in al, 0x64
        test al, 1
        jz wait
        in al, 0x60
        test al, 0x80
        jnz wait
        xor ebp, 1
        jmp show
