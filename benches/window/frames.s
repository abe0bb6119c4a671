# A Multiboot kernel that draws 800 by 600 dots of 32 bits thirty times a second, all of them in the colour that is its
# frame's number.
        .intel_syntax noprefix
        .include "multiboot.inc"

        # 1193182 Hz / 39773: timer 0 counts down and begins anew thirty times a second.
        .equ PERIOD, 39773

# A register of Bochs' VBE extensions.
        .macro dispi index, value
        mov dx, 0x1ce
        mov ax, \index
        out dx, ax
        mov dx, 0x1cf
        mov ax, \value
        out dx, ax
        .endm

start:  # The graphics card is the first function 0 of its class on bus 0; its frame buffer is at its first base address.
        mov ebx, 0x80000000
card:   lea eax, [ebx + 8]
        mov dx, 0xcf8
        out dx, eax
        mov dx, 0xcfc
        in eax, dx
        shr eax, 16
        cmp eax, 0x0300
        je found
        add ebx, 0x800
        jmp card
found:  lea eax, [ebx + 0x10]
        mov dx, 0xcf8
        out dx, eax
        mov dx, 0xcfc
        in eax, dx
        and eax, 0xfffffff0
        mov ebx, eax

        dispi 4, 0
        dispi 1, 800
        dispi 2, 600
        dispi 3, 32
        dispi 4, 0x41

        mov al, 0x34
        out 0x43, al
        mov al, PERIOD & 255
        out 0x40, al
        mov al, PERIOD >> 8
        out 0x40, al

        xor ebp, ebp                    # the frame's number
        xor esi, esi                    # the count at the last look
tick:   xor al, al
        out 0x43, al
        in al, 0x40
        mov cl, al
        in al, 0x40
        mov ch, al
        movzx ecx, cx
        cmp ecx, esi
        mov esi, ecx
        jbe tick

        inc ebp
        mov eax, ebp
        and eax, 0xffffff
        mov edi, ebx
        mov ecx, 800 * 600
        # A dot at a time, as a program draws.
dot:    mov [edi], eax
        add edi, 4
        dec ecx
        jnz dot
        jmp tick
