# Virtual-8086 mode: what is sensitive to IOPL, the I/O bitmap, ways out and back.
.include "guest.inc"

.set DATA, 0x4600               # paragraph of the data segment
.set EXTRA, 0x4700
.set STACK, 0x4000
.set SP0, 0x8000

# Continues in virtual-8086 mode with these flags.
.macro V86 flags
    push 0x4901
    push 0x4801
    push DATA
    push EXTRA
    push STACK
    push SP0
    push VM | \flags
    push 0
    push offset 95f
    iretd
.code16
95:
.endm
# An instruction that faults there.
.macro FAULTSV vector, error, flags, insn
    TRY
    V86 \flags
91: \insn
    int DONE
.code32
96:
    IS "dword ptr [frame + F_VECTOR]", "\vector", "v86: \insn: vector"
    IS "dword ptr [frame + F_ERROR]", "\error", "v86: \insn: error code"
    IS "dword ptr [frame + F_EIP]", "offset 91b", "v86: \insn: EIP"
    IS "dword ptr [frame + F_ESP]", SP0, "v86: \insn: ESP"
    mov eax, [frame + F_EFLAGS]
    and eax, VM
    IS eax, VM, "v86: \insn: VM in the saved flags"
.endm
.macro WORKSV flags, insn
    TRY
    V86 \flags
    \insn
    int3                        # which does not need IOPL 3
.code32
96:
    IS "dword ptr [frame + F_VECTOR]", 3, "v86: \insn: nothing raised"
.endm
.set IOPL3, 0x3002

main:
    DESC TSS0, "offset tss0", 0x2068, TSS_32, 0
    mov ax, TSS0
    ltr ax
    mov edi, offset tss0 + 0x68
    mov eax, -1
    mov ecx, 0x2000 / 4 + 1
    rep stosd
    call entry
    call sensitive
    call privileged
    call ports
    call interrupts
    call segments
    ret

entry:
    TRY
    V86 2
    mov ax, cs
    mov bx, ss
    mov cx, ds
    mov dx, es
    mov si, fs
    mov di, gs
    mov bp, sp
    hlt                         # privileged
.code32
    CATCH 13, 0, "HLT"
    ISW "[frame + F_EAX]", 0, "CS"
    ISW "[frame + F_EBX]", STACK, "SS"
    ISW "[frame + F_ECX]", DATA, "DS"
    ISW "[frame + F_EDX]", EXTRA, "ES"
    ISW "[frame + F_ESI]", 0x4801, "FS"
    ISW "[frame + F_EDI]", 0x4901, "GS"
    ISW "[frame + F_EBP]", SP0, "SP"
    # What the monitor finds on its stack, and in its registers.
    IS "dword ptr [frame + F_SS]", STACK, "SS saved"
    IS "dword ptr [frame + F_ESP]", SP0, "ESP saved"
    IS "dword ptr [frame + F_VES]", EXTRA, "ES saved"
    IS "dword ptr [frame + F_VDS]", DATA, "DS saved"
    IS "dword ptr [frame + F_VFS]", 0x4801, "FS saved"
    IS "dword ptr [frame + F_VGS]", 0x4901, "GS saved"
    IS "dword ptr [frame + F_CS]", 0, "CS saved"
    ISW "[frame + F_DS]", 0, "DS is null in the monitor"
    ISW "[frame + F_ES]", 0, "ES is null in the monitor"
    ISW "[frame + F_FS]", 0, "FS is null in the monitor"
    ISW "[frame + F_GS]", 0, "GS is null in the monitor"
    mov eax, [handler_esp]
    IS eax, "STACK0 - 0x1000 - 36 - 8 - 48", "the monitor's stack"
    # VM does not come in by POPF, nor by IRET from ring 3.
    TRY
    push VM + 2
    popfd
    pushfd
    pop eax
    CATCH NOTHING, 0, "POPF of VM"
    and eax, VM
    IS eax, 0, "VM after POPF"
    NOT_ON_TCG 2f               # it does not look at CPL
    TRY
    RING 3
    push DATA3
    push STACK3
    push VM + 2
    push CODE3
    push offset 1f
    iretd
1:  int DONE
    CATCH DONE, 0, "IRET of VM in ring 3"
    mov eax, [frame + F_EFLAGS]
    and eax, VM
    IS eax, 0, "VM after IRET in ring 3"
2:
    ret

sensitive:
    FAULTSV 13, 0, 2, "cli"
    FAULTSV 13, 0, 2, "sti"
    FAULTSV 13, 0, 2, "pushf"
    FAULTSV 13, 0, 2, "popf"
    FAULTSV 13, 0, 2, "pushfd"
    FAULTSV 13, 0, 2, "iret"
    FAULTSV 13, 0, 2, "iretd"
    FAULTSV 13, 0, 2, "int 0x40"
    FAULTSV 13, 0, 0x2002, "cli"
    # INT3 and INTO are not sensitive, but heed the gate's DPL.
    FAULTSV 13, "3 * 8 + 2", 2, "int3"
    VECTOR 3, CODE0, "offset vectors + 3 * VECTOR_SIZE", "INT_GATE32 | DPL3"
    TRY
    V86 2
    int3
1:  nop
.code32
    CATCH 3, 0, "INT3 in virtual-8086 mode"
    IS "dword ptr [frame + F_EIP]", "offset 1b", "EIP of INT3"
    # With IOPL 3 all work.
    TRY
    V86 IOPL3
    pushf
    pop ax
    sti
    pushf
    pop bx
    cli
    pushf
    pop cx
    push 0x4ed7
    popf
    pushfd
    pop edx
    push 2
    popf
    mov si, sp
    int DONE
.code32
    CATCH DONE, 0, "flags in virtual-8086 mode"
    ISW "[frame + F_EAX]", 0x3002, "PUSHF"
    ISW "[frame + F_EBX]", 0x3202, "PUSHF after STI"
    ISW "[frame + F_ECX]", 0x3002, "PUSHF after CLI"
    IS "dword ptr [frame + F_EDX]", 0x7ed7, "PUSHFD after POPF: no VM, IOPL as it was"
    ISW "[frame + F_ESI]", SP0, "SP"
    # IRET there: IF changes, IOPL and VM do not.
    TRY
    V86 IOPL3
    pushw 0x0203
    pushw 0
    pushw offset 1f
    iret
1:  pushf
    pop ax
    pushd 0x0
    pushd 0
    pushd offset 2f
    iretd
2:  pushf
    pop bx
    int DONE
.code32
    CATCH DONE, 0, "IRET in virtual-8086 mode"
    ISW "[frame + F_EAX]", 0x3203, "flags after IRET"
    ISW "[frame + F_EBX]", 0x3002, "flags after IRETD"
    FAULTSV 13, 0, 2, "pushw 0x202; pushw 0; pushw offset 92f; add sp, 6; 91: iret; 92:"
    ret

privileged:
    FAULTSV 13, 0, IOPL3, "hlt"
    FAULTSV 13, 0, IOPL3, "mov eax, cr0"
    FAULTSV 13, 0, IOPL3, "mov cr0, eax"
    FAULTSV 13, 0, IOPL3, "mov dr7, eax"
    FAULTSV 13, 0, IOPL3, "lgdt ds:[0]"
    FAULTSV 13, 0, IOPL3, "lmsw ax"
    FAULTSV 13, 0, IOPL3, "clts"
    FAULTSV 13, 0, IOPL3, "invlpg ds:[0]"
    FAULTSV 13, 0, IOPL3, "wbinvd"
    FAULTSV 13, 0, IOPL3, "rdmsr"
    FAULTSV 6, 0, IOPL3, "sldt ax"
    FAULTSV 6, 0, IOPL3, "str ax"
    FAULTSV 6, 0, IOPL3, "lldt ax"
    FAULTSV 6, 0, IOPL3, "ltr ax"
    FAULTSV 6, 0, IOPL3, "verr ax"
    FAULTSV 6, 0, IOPL3, "lar ax, bx"
    FAULTSV 6, 0, IOPL3, "lsl ax, bx"
    FAULTSV 6, 0, IOPL3, "arpl ax, bx"
    WORKSV 2, "sgdt ds:[0]"
    WORKSV 2, "smsw ax"
    WORKSV 2, "cpuid"
    ret

# The I/O permission bitmap, whatever IOPL is.
ports:
    FAULTSV 13, 0, 2, "in al, 0x80"
    FAULTSV 13, 0, IOPL3, "in al, 0x80"
    FAULTSV 13, 0, IOPL3, "out 0x80, al"
    FAULTSV 13, 0, IOPL3, "mov dx, 0x80; 91: insb"
    FAULTSV 13, 0, IOPL3, "mov dx, 0x80; 91: outsb"
    mov byte ptr [tss0 + 0x68 + 0x80 / 8], 0xfc         # 80h and 81h
    WORKSV 2, "in al, 0x80"
    WORKSV 2, "out 0x81, al"
    FAULTSV 13, 0, 2, "in al, 0x82"
    WORKSV 2, "in ax, 0x80"
    FAULTSV 13, 0, 2, "in ax, 0x81"
    FAULTSV 13, 0, 2, "in eax, 0x80"
    mov byte ptr [tss0 + 0x68 + 0x80 / 8], 0x7f         # 87h
    FAULTSV 13, 0, 2, "in ax, 0x87"
    mov byte ptr [tss0 + 0x68 + 0x88 / 8], 0xfe         # 88h: in the next byte
    WORKSV 2, "in ax, 0x87"
    mov dword ptr [tss0 + 0x68 + 0x80 / 8], -1
    # Ring 3 with IOPL 0 heeds the same map.
    FAULTS3 13, 0, "in al, 0x80"
    mov byte ptr [tss0 + 0x68 + 0x80 / 8], 0xfe
    WORKS3 "in al, 0x80"
    mov byte ptr [tss0 + 0x68 + 0x80 / 8], 0xff
    # A map that is cut off by the limit denies what lies beyond, and what has no byte after it.
    mov byte ptr [tss0 + 0x68 + 8], 0
    mov byte ptr [tss0 + 0x68 + 9], 0
    DESC TSS0, "offset tss0", "0x68 + 9", TSS_32, 0
    mov ax, TSS0
    ltr ax
    WORKS3 "in al, 0x40"
    FAULTS3 13, 0, "in al, 0x48"
    FAULTS3 13, 0, "in al, 0x50"
    mov word ptr [tss0 + 102], 0xffff
    FAULTS3 13, 0, "in al, 0x40"
    mov word ptr [tss0 + 102], 0x68
    DESC TSS0, "offset tss0", 0x2068, TSS_32, 0
    mov ax, TSS0
    ltr ax
    ret

interrupts:
    # INT n with IOPL 3 through the IDT, not real mode's table.
    TRY
    V86 IOPL3
    mov ax, 0x1234
    int 0x40
1:  nop
.code32
    CATCH 0x40, 0, "INT n in virtual-8086 mode"
    IS "dword ptr [frame + F_EIP]", "offset 1b", "EIP of INT n"
    ISW "[frame + F_EAX]", 0x1234, "AX of INT n"
    FAULTSV 13, "13 * 8 + 2", IOPL3, "int 13"
    # Gates that do not lead to ring 0.
    NOT_ON_TCG 1f               # it goes to ring 1
    VECTOR 0x40, CODE1, "offset main", "INT_GATE32 | DPL3"
    FAULTSV 13, "CODE1 & ~3", IOPL3, "int 0x40"
1:  DESC FREE, 0, 0xfffff, "CONFORMING", "BIG | PAGES"
    VECTOR 0x40, FREE, "offset main", "INT_GATE32 | DPL3"
    FAULTSV 13, FREE, IOPL3, "int 0x40"
    DESC FREE, 0, 0xfffff, "RX_CODE | DPL3", "BIG | PAGES"
    VECTOR 0x40, FREE, "offset main", "INT_GATE32 | DPL3"
    FAULTSV 13, FREE, IOPL3, "int 0x40"
    # A 16-bit gate pushes words.
    VECTOR 0x40, CODE0, "offset 2f", "INT_GATE16 | DPL3"
    TRY
    V86 IOPL3
    int 0x40
1:  nop
.code32
2:  mov ax, DATA0
    mov ds, ax
    mov es, ax
    mov ebp, esp
    CATCH NOTHING, 0, "a 16-bit gate from virtual-8086 mode"
    sub ebp, STACK0 - 0x1000
    IS ebp, -18, "nine words"
    ISW "[STACK0 - 0x1000 - 2]", 0x4901, "GS"
    ISW "[STACK0 - 0x1000 - 8]", EXTRA, "ES"
    ISW "[STACK0 - 0x1000 - 12]", SP0, "SP"
    ISW "[STACK0 - 0x1000 - 18]", "offset 1b", "IP"
    VECTOR 0x40, CODE0, "offset vectors + 0x40 * VECTOR_SIZE", "INT_GATE32 | DPL3"
    # The monitor changes registers and goes back.
    mov dword ptr [hook], offset monitor
    TRY
    V86 2
    mov ax, 1
    cli                         # the monitor passes over it
    mov bx, ax
    mov cx, ds
    mov dx, es
    int3
.code32
    CATCH 3, 0, "back from the monitor"
    ISW "[frame + F_EBX]", 0x77, "AX from the monitor"
    ISW "[frame + F_ECX]", DATA, "DS restored by IRET"
    ISW "[frame + F_EDX]", EXTRA, "ES restored by IRET"
    # A fault in ring 0's IRET to virtual-8086 mode: EIP beyond 64 KiB.
    NOT_ON_TCG 1f
    TRY
    push 0
    push 0
    push 0
    push 0
    push STACK
    push SP0
    push VM + 2
    push 0
    push 0x10000
91: iretd
    CATCH 13, 0, "IRET to an IP beyond 64 KiB"
    IS "dword ptr [frame + F_EIP]", "offset 91b", "EIP of that IRET"
1:  ret
monitor:
    mov dword ptr [ebx + F_EAX], 0x77
    inc dword ptr [ebx + F_EIP]
    mov dword ptr [hook], 0
    ret

segments:
    mov dword ptr [DATA * 16 + 0x100], 0x11223344
    mov dword ptr [0x48000 + 0x10], 0x55667788
    mov word ptr [DATA * 16 + 0x200], offset 3f
    mov word ptr [DATA * 16 + 0x202], 0
    mov word ptr [DATA * 16 + 0x204], 0x9abc
    mov word ptr [DATA * 16 + 0x206], 0x4800
    TRY
    V86 2
    mov eax, ds:[0x100]
    mov cx, 0x4800
    mov es, cx
    mov ecx, es:[0x10]
    lfs dx, ds:[0x204]
    mov si, fs
    .byte 0x9a                  # CALL FAR
    .word 1f, 0
    jmp 2f
1:  mov bp, sp
    mov bx, [bp + 2]
    retf
2:  jmp dword ptr ds:[0x200]
    nop
3:  mov di, sp
    int3
.code32
    CATCH 3, 0, "segments in virtual-8086 mode"
    IS "dword ptr [frame + F_EAX]", 0x11223344, "through DS"
    IS "dword ptr [frame + F_ECX]", 0x55667788, "through ES"
    ISW "[frame + F_EDX]", 0x9abc, "LFS: offset"
    ISW "[frame + F_ESI]", 0x4800, "LFS: selector"
    ISW "[frame + F_EBX]", 0, "CS pushed by CALL"
    ISW "[frame + F_EDI]", SP0, "SP"
    NOT_ON_TCG 1f               # it does not check limits
    FAULTSV 13, 0, 2, "mov ax, ds:[0xffff]"
    FAULTSV 13, 0, 2, "mov eax, ds:[0xfffd]"
    FAULTSV 12, 0, 2, "mov bp, 0xffff; 91: mov ax, [bp]"
    FAULTSV 13, 0, 2, "mov ebx, 0x10000; 91: mov al, [ebx]"
1:  # User pages only.
    ret
