# Real mode: the vector table, limits, "unreal" mode, what wraps at 64 KiB and what does not.
.include "guest.inc"

.set TOP, 0xee00                # of the real-mode stack
.set BIG16, FREE                # data with a 4 GiB limit for unreal mode

# Into real mode with flat-like segments of base 0, and back.
.macro REAL
    mov [saved_esp], esp
    lidt [real_idt]
    ljmp CODE16, offset 97f
.code16
97: mov ax, DATA16
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov fs, ax
    mov gs, ax
    mov eax, cr0
    and al, 0xfe
    mov cr0, eax
    .byte 0xea
    .word 98f, 0
98: xor ax, ax
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov ss, ax
    mov sp, TOP
.endm
.macro FLAT
    cli
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .byte 0x66, 0xea
    .long 97f
    .word CODE0
.code32
97: mov ax, DATA0
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov esp, [saved_esp]
    xor eax, eax
    mov fs, ax
    mov gs, ax
    lidt [idtr]
    cld
.endm
# In real mode: an instruction that faults; noted are vector, IP, SP.
.macro FAULTSR vector, insn
    REAL
    mov word ptr cs:[resume16], offset 96f
    mov word ptr cs:[noted], NOTHING
91: \insn
96: mov sp, TOP
    FLAT
    ISW "[noted]", "\vector", "real: \insn: vector"
    ISW "[noted + 2]", "offset 91b", "real: \insn: IP"
    ISW "[noted + 4]", 0, "real: \insn: CS"
.endm
.macro WORKSR insn
    REAL
    mov word ptr cs:[resume16], offset 96f
    mov word ptr cs:[noted], NOTHING
    \insn
96: mov sp, TOP
    FLAT
    ISW "[noted]", NOTHING, "real: \insn: nothing raised"
.endm

main:
    # Every vector has its handler: CALL common16.
    mov edi, 0
    mov ecx, 256
    mov eax, offset stubs
1:  stosd
    add eax, 3
    loop 1b
    DESC BIG16, 0, 0xfffff, RW_DATA, PAGES
    call basics
    call limits
    call unreal
    ret

.code16
stubs:
.rept 256
    .byte 0xe8
    .word common16 - . - 2
.endr
common16:
    pop word ptr cs:[noted]     # return address: vector * 3 + 3
    pusha
    mov ax, cs:[noted]
    sub ax, offset stubs + 3
    mov bl, 3
    div bl
    xor ah, ah
    mov cs:[noted], ax
    mov bp, sp
    mov ax, [bp + 16]
    mov cs:[noted + 2], ax
    mov ax, [bp + 18]
    mov cs:[noted + 4], ax
    mov ax, [bp + 20]
    mov cs:[noted + 6], ax
    mov cs:[noted + 8], sp
    pushf
    pop cs:[noted + 10]
    cmp byte ptr cs:[returns], 0
    je 1f
    popa
    iret
1:  popa
    add sp, 6
    jmp word ptr cs:[resume16]
.code32

basics:
    REAL
    mov word ptr [resume16], offset 2f
    mov ax, 0x8200              # IF would be set by POPF; and TF not
    push 0x0603                 # DF, IF, CF
    popf
    int 0x40
1:  nop
2:  FLAT
    ISW "[noted]", 0x40, "INT n: vector"
    ISW "[noted + 2]", "offset 1b", "INT n: IP"
    ISW "[noted + 6]", 0x603, "INT n: FLAGS"
    movzx eax, word ptr [noted + 10]
    and eax, IF | TF | DF
    IS eax, DF, "INT n: flags in the handler"
    ISW "[noted + 8]", "TOP - 22", "INT n: SP"
    # There and back.
    mov byte ptr [returns], 1
    REAL
    mov cx, 0x1234
    stc
    int 0x41
    setc cl
    mov [noted + 12], cx
    mov [noted + 14], sp
    FLAT
    mov byte ptr [returns], 0
    ISW "[noted + 12]", 0x1201, "INT n and IRET"
    ISW "[noted + 14]", TOP, "INT n and IRET: SP"
    FAULTSR 0, "xor cx, cx; 91: div cx"
    FAULTSR 6, "ud2"
    FAULTSR 6, "sldt ax"
    FAULTSR 6, "arpl ax, bx"
    FAULTSR 6, "lar ax, bx"
    NOT_ON_TCG 1f               # it pages in real mode
    FAULTSR 13, "mov eax, 0x80000000; 91: mov cr0, eax"
    FAULTSR 13, "sysenter"
1:
    WORKSR "clts"
    WORKSR "lgdtd [gdtr]"
    WORKSR "mov eax, cr0"
    WORKSR "in al, 0x80"
    WORKSR "smsw ax"
    # Beyond the IDT's limit.
    mov word ptr [real_idt], 0x40 * 4 + 2
    FAULTSR 13, "int 0x40"
    WORKSR "nop"
    mov word ptr [real_idt], 0x3ff
    # Single steps.
    REAL
    mov word ptr [resume16], offset 2f
    push TF + 2
    popf
    nop
1:  nop
2:  FLAT
    ISW "[noted]", 1, "a step: vector"
    ISW "[noted + 2]", "offset 1b", "a step: IP"
    xor eax, eax
    mov dr6, eax
    # A far call and return; segment registers are paragraphs.
    REAL
    .byte 0x9a
    .word 1f - 0x0, 0
    jmp 2f
1:  mov bp, sp
    mov ax, [bp]
    mov [noted + 2], ax
    retf
2:  mov ax, 0x123
    mov es, ax
    mov dword ptr es:[4], 0x600d600d
    FLAT
    IS "dword ptr [0x1234]", 0x600d600d, "ES is a paragraph"
    ret

limits:
    NOT_ON_TCG 1f               # it does not check limits
    FAULTSR 13, "mov ax, ds:[0xffff]"
    FAULTSR 13, "mov ds:[0xffff], ax"
    FAULTSR 13, "mov eax, ds:[0xfffd]"
    FAULTSR 12, "mov bp, 0xffff; 91: mov ax, [bp]"
    FAULTSR 13, "mov ebx, 0x10000; 91: mov al, [ebx]"
    FAULTSR 13, "mov si, 0xffff; 91: lodsw"
    FAULTSR 13, "mov eax, 0x10000; 91: jmp eax"
    FAULTSR 13, "mov di, 0xfffe; mov cx, 3; 91: stosd"
1:  WORKSR "mov al, ds:[0xffff]"
    # Offsets of 16 bits wrap; a byte at a time a string goes round.
    REAL
    mov bx, 0xfff0
    mov si, 0x1250
    mov dword ptr [0x1240], 0xabcd0123
    mov eax, [bx + si]          # FFF0 + 1250 = 1240
    mov [noted + 12], eax
    FLAT
    IS "dword ptr [noted + 12]", 0xabcd0123, "BX + SI wraps"
    ret

# Limits of 4 GiB that protected mode left behind.
unreal:
    mov dword ptr [0x200000], 0xfeedf00d
    REAL
    mov eax, cr0
    or al, 1
    mov cr0, eax
    mov bx, BIG16
    mov ds, bx
    and al, 0xfe
    mov cr0, eax
    jmp 1f
1:  mov ebx, 0x200000
    mov ecx, [ebx]
    xor ax, ax
    mov ds, ax                  # keeps the limit
    mov edx, [ebx]
    mov dword ptr [ebx + 4], 0x12345678
    mov [noted + 12], ecx
    mov [noted + 16], edx
    FLAT
    IS "dword ptr [noted + 12]", 0xfeedf00d, "unreal mode"
    IS "dword ptr [noted + 16]", 0xfeedf00d, "unreal mode after a load of DS"
    IS "dword ptr [0x200004]", 0x12345678, "unreal mode: a write"
    ret

.data
.balign 4
real_idt:
    .word 0x3ff
    .long 0
    .word 0
saved_esp: .long 0
resume16: .long 0
noted: .skip 24
returns: .long 0
.text
