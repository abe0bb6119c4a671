# Gates: calls, jumps, interrupts and returns between all privilege levels.
.include "guest.inc"

.set GATE0, FREE
.set TARGET, FREE + 8
.set CONF0, FREE + 16           # conforming code, DPL 0
.set BAD_STACK, FREE + 24
.set SMALL_TSS, FREE + 32
.set CODE16_0, FREE + 40
.set STACK16, FREE + 48         # 16-bit stack, base 40000h
.set STACK16_3, FREE + 56
.set CODE16_3, FREE + 64

main:
    DESC CONF0, 0, 0xfffff, CONFORMING, "BIG | PAGES"
    DESC CODE16_0, 0, 0xffff, RX_CODE, 0
    DESC CODE16_3, 0, 0xffff, "RX_CODE | DPL3", 0
    DESC STACK16, 0x40000, 0xffff, RW_DATA, 0
    DESC STACK16_3, 0x40000, 0xffff, "RW_DATA | DPL3", 0
    call same_level
    call inner
    call gate_errors
    call stack_errors
    call interrupts
    call interrupt_errors
    call returns
    call return_errors
    ret

# CALL and JMP through gates without a change of level.
same_level:
    GATE GATE0, CODE0, "offset 1f", CALL_GATE32, 5
    mov ebp, esp
    TRY
    lcall GATE0, 0x12345678     # the offset does not matter, nor the count
2:  int DONE
1:  pop eax
    pop ecx
    CATCH NOTHING, 0, "same-level call gate"
    IS eax, "offset 2b", "return EIP"
    IS ecx, CODE0, "return CS"
    IS esp, ebp, "nothing else pushed"
    GATE GATE0, CODE0, "offset 1f", CALL_GATE16
    TRY
    lcall GATE0, 0
2:  int DONE
1:  mov ecx, esp
    pop eax
    CATCH NOTHING, 0, "16-bit same-level call gate"
    IS eax, "CODE0 * 0x10000 + offset 2b", "16-bit return address"
    sub ecx, ebp
    IS ecx, -4, "two words pushed"
    GATE GATE0, CODE0, "offset 1f", CALL_GATE32
    TRY
    ljmp GATE0, 0
    int DONE
1:  CATCH NOTHING, 0, "jump through a gate"
    # RETF and RETF n at one level, 32 and 16 bits.
    push 0x11
    push 0x22
    push CODE0
    push offset 1f
    mov ebp, esp
    TRY
    retf 8
    int DONE
1:  mov ecx, esp
    CATCH NOTHING, 0, "RETF n"
    sub ecx, ebp
    IS ecx, 16, "RETF n releases"
    add esp, 16
    ret

# Ring 3 to inner levels.
inner:
    .macro TO_RING n, stack
    GATE GATE0, "CODE\n", "offset 1f", "CALL_GATE32 | DPL3", 3
    TRY
    RING 3
    push 0x111
    push 0x222
    push 0x333
    mov [saved], esp
    lcall GATE0, 0
2:  mov [saved + 4], esp
    int DONE
1:  mov ebp, esp
    mov ax, cs
    mov [saved + 8], ax
    mov ax, ss
    mov [saved + 10], ax
    mov eax, [ebp]
    mov [saved + 12], eax
    mov eax, [ebp + 4]
    mov [saved + 16], eax
    mov eax, [ebp + 8]
    mov [saved + 20], eax
    mov eax, [ebp + 16]
    mov [saved + 24], eax
    mov eax, [ebp + 20]
    mov [saved + 28], eax
    mov eax, [ebp + 24]
    mov [saved + 32], eax
    mov [saved + 36], esp
    retf 12
    CATCH DONE, 0, "ring 3 to \n and back"
    ISW "[saved + 8]", "CODE\n", "CS in ring \n"
    ISW "[saved + 10]", "DATA\n", "SS in ring \n"
    IS "dword ptr [saved + 12]", "offset 2b", "EIP from ring 3"
    IS "dword ptr [saved + 16]", CODE3, "CS from ring 3"
    IS "dword ptr [saved + 20]", 0x333, "last parameter"
    IS "dword ptr [saved + 24]", 0x111, "first parameter"
    mov eax, [saved]
    IS "dword ptr [saved + 28]", eax, "ESP from ring 3"
    IS "dword ptr [saved + 32]", DATA3, "SS from ring 3"
    IS "dword ptr [saved + 36]", "\stack - 28", "ESP in ring \n"
    mov eax, [saved]
    add eax, 12
    IS "dword ptr [saved + 4]", eax, "ESP after RETF 12"
    IS "dword ptr [frame + F_CS]", CODE3, "CS after RETF"
    .endm
    TO_RING 0, "(STACK0 - 0x1000)"
    TO_RING 1, STACK1
    TO_RING 2, STACK2

    # 16-bit gate with word parameters.
    GATE GATE0, CODE0, "offset 1f", "CALL_GATE16 | DPL3", 2
    TRY
    RING 3
    push 0x22221111
    mov [saved], esp
    lcall GATE0, 0
    int DONE
1:  mov ebp, esp
    mov eax, [ebp]
    mov ecx, [ebp + 4]
    mov edx, [ebp + 8]
    CATCH NOTHING, 0, "16-bit gate inwards"
    IS eax, "(CODE3 * 0x10000 + offset 1b - 2)", "16-bit CS:IP"
    IS ecx, 0x22221111, "word parameters"
    mov eax, [saved]
    and eax, 0xffff
    add eax, DATA3 * 0x10000
    IS edx, eax, "16-bit SS:SP"
    sub ebp, STACK0 - 0x1000
    IS ebp, -12, "six words pushed"

    # A conforming target keeps the level.
    GATE GATE0, CONF0, "offset 1f", "CALL_GATE32 | DPL3", 1
    TRY
    RING 3
    mov [saved], esp
    lcall GATE0, 0
    int DONE
1:  mov ax, cs
    mov [saved + 8], ax
    sub esp, [saved]
    mov [saved + 4], esp
    mov esp, STACK3
    int DONE
    CATCH DONE, 0, "call gate to conforming code"
    NOT_ON_TCG 1f               # its CS has the DPL
    ISW "[saved + 8]", "CONF0 + 3", "CS is conforming with CPL 3"
1:
    IS "dword ptr [saved + 4]", -8, "no switch of stacks"
    # From ring 1 to ring 0 and to ring 1; JMP to ring 0 is not possible.
    GATE GATE0, CODE0, "offset 1f", "CALL_GATE32 | DPL3"
    TRY
    RING 1
    lcall GATE0, 0
    int DONE
1:  mov eax, [esp + 4]
    mov edx, [esp + 12]
    CATCH NOTHING, 0, "ring 1 to ring 0"
    IS eax, CODE1, "CS from ring 1"
    IS edx, DATA1, "SS from ring 1"
    FAULTS3 13, CODE0, "ljmp GATE0, 0"
    ret

gate_errors:
    GATE GATE0, CODE0, "offset main", CALL_GATE32
    FAULTS3 13, GATE0, "lcall GATE0, 0"
    GATE GATE0, CODE0, "offset main", "CALL_GATE32 | DPL2"
    FAULTS 13, GATE0, "lcall GATE0 + 3, 0"
    GATE GATE0, CODE0, "offset main", "CALL_GATE32 & ~PRESENT"
    FAULTS 11, GATE0, "lcall GATE0, 0"
    GATE GATE0, CODE0, "offset main", "(CALL_GATE32 | DPL3) & ~PRESENT"
    FAULTS3 11, GATE0, "ljmp GATE0, 0"
    GATE GATE0, 0, "offset main", "CALL_GATE32 | DPL3"
    FAULTS3 13, 0, "lcall GATE0, 0"
    GATE GATE0, 3, "offset main", "CALL_GATE32 | DPL3"
    FAULTS3 13, 0, "lcall GATE0, 0"
    GATE GATE0, 0x201, "offset main", "CALL_GATE32 | DPL3"
    FAULTS3 13, 0x200, "lcall GATE0, 0"
    GATE GATE0, 0x3c, "offset main", "CALL_GATE32 | DPL3"
    FAULTS3 13, 0x3c, "lcall GATE0, 0"
    GATE GATE0, DATA0, "offset main", "CALL_GATE32 | DPL3"
    FAULTS3 13, DATA0, "lcall GATE0, 0"
    GATE GATE0, CODE3, "offset main", "CALL_GATE32 | DPL3"
    FAULTS 13, "CODE3 & ~3", "lcall GATE0, 0"
    DESC TARGET, 0, 0xfffff, "RX_CODE & ~PRESENT", "BIG | PAGES"
    GATE GATE0, TARGET, "offset main", "CALL_GATE32 | DPL3"
    FAULTS3 11, TARGET, "lcall GATE0, 0"
    NOT_ON_TCG 1f               # it does not check this limit
    DESC TARGET, 0, 0, RX_CODE, "BIG | PAGES"
    GATE GATE0, TARGET, 0x1000, "CALL_GATE32 | DPL3"
    FAULTS3 13, 0, "lcall GATE0, 0"
    FAULTS 13, 0, "ljmp GATE0, 0"
1:
    GATE GATE0, CODE0, "offset main", "INT_GATE32 | DPL3"
    FAULTS 13, GATE0, "lcall GATE0, 0"
    # Gates cannot be gates' targets.
    GATE GATE0, CODE0, "offset main", CALL_GATE32
    GATE TARGET, GATE0, "offset main", CALL_GATE32
    FAULTS 13, GATE0, "lcall TARGET, 0"
    ret

# Trouble with the new stack, that of ring 1 (ring 0's is for the handler).
stack_errors:
    GATE GATE0, CODE1, "offset main", "CALL_GATE32 | DPL3"
    mov dword ptr [tss0 + 16], 0
    FAULTS3 10, 0, "lcall GATE0, 0"
    mov dword ptr [tss0 + 16], DATA0
    FAULTS3 10, DATA0, "lcall GATE0, 0"
    mov dword ptr [tss0 + 16], DATA3
    FAULTS3 10, "DATA3 & ~3", "lcall GATE0, 0"
    mov dword ptr [tss0 + 16], 0x201
    FAULTS3 10, 0x200, "lcall GATE0, 0"
    mov dword ptr [tss0 + 16], CODE1
    FAULTS3 10, "CODE1 & ~3", "lcall GATE0, 0"
    DESC BAD_STACK, 0, 0xfffff, "RO_DATA | DPL1", "BIG | PAGES"
    mov dword ptr [tss0 + 16], BAD_STACK + 1
    FAULTS3 10, BAD_STACK, "lcall GATE0, 0"
    DESC BAD_STACK, 0, 0xfffff, "(RW_DATA | DPL1) & ~PRESENT", "BIG | PAGES"
    NOT_ON_TCG 1f               # it has #TS for a stack that is not present, and checks no limits
    FAULTS3 12, BAD_STACK, "lcall GATE0, 0"
    DESC BAD_STACK, 0x40000, 0xff, "RW_DATA | DPL1", BIG
    mov dword ptr [tss0 + 12], 0x101
    FAULTS3 12, BAD_STACK, "lcall GATE0, 0"
    mov dword ptr [tss0 + 12], 8
    FAULTS3 12, BAD_STACK, "lcall GATE0, 0"
1:  mov dword ptr [tss0 + 12], STACK1
    mov dword ptr [tss0 + 16], DATA1
    # INT has the same trouble.
    mov dword ptr [tss0 + 16], DATA0
    VECTOR 0x40, CODE1, "offset main", "INT_GATE32 | DPL3"
    FAULTS3 10, DATA0, "int 0x40"
    # An exception has EXT set in the error code.
    NOT_ON_TCG 1f               # it knows no EXT
    VECTOR 6, CODE1, "offset main", INT_GATE32
    FAULTS3 10, "DATA0 + 1", "ud2"
1:
    VECTOR 6, CODE0, "offset vectors + 6 * VECTOR_SIZE", INT_GATE32
    mov dword ptr [tss0 + 16], DATA1
    # A TSS that ends before the stack wanted: ring 1's is at 12 to 17.
    NOT_ON_TCG 2f               # it wants two bytes more
    GATE GATE0, CODE1, "offset 1f", "CALL_GATE32 | DPL3"
    DESC SMALL_TSS, "offset tss0", 17, TSS_32, 0
    mov ax, SMALL_TSS
    ltr ax
    TRY
    RING 3
    lcall GATE0, 0
1:  int DONE
    CATCH DONE, 0, "the last stack of a short TSS"
2:
    DESC SMALL_TSS, "offset tss0", 16, TSS_32, 0
    mov ax, SMALL_TSS
    ltr ax
    FAULTS3 10, SMALL_TSS, "lcall GATE0, 0"
    DESC TSS0, "offset tss0", 0x67, TSS_32, 0
    mov ax, TSS0
    ltr ax
    ret

interrupts:
    # Interrupt and trap gates: what they push and which flags they clear.
    VECTOR 0x40, CODE0, "offset 1f", "INT_GATE32 | DPL3"
    mov dword ptr [saved], 0
    TRY
    RING 3, 0x7f03              # IF, TF clear: NT, IOPL 3, OF, DF, IF, CF
    int 0x40
2:  int DONE
1:  pushfd
    pop eax
    mov ecx, [esp]
    mov edx, [esp + 4]
    mov ebx, [esp + 8]
    mov esi, [esp + 12]
    mov edi, [esp + 16]
    mov ebp, esp
    cld
    CATCH NOTHING, 0, "INT through an interrupt gate"
    and eax, NT | TF | IF | DF | CF
    IS eax, "DF | CF", "flags in an interrupt gate's handler"
    IS ecx, "offset 2b", "EIP pushed"
    IS edx, CODE3, "CS pushed"
    IS edi, DATA3, "SS pushed"
    IS esi, STACK3, "ESP pushed"
    IS ebp, "STACK0 - 0x1000 - 20", "ESP in the handler"
    VECTOR 0x40, CODE0, "offset 1f", "TRAP_GATE32 | DPL3"
    TRY
    RING 3, 0x3203
    int 0x40
    int DONE
1:  pushfd
    pop eax
    mov ebx, [esp + 8]
    cli
    CATCH NOTHING, 0, "INT through a trap gate"
    and eax, IF | CF
    IS eax, "IF | CF", "flags in a trap gate's handler"
    IS ebx, 0x3203, "EFLAGS pushed"
    # 16-bit gates push words.
    VECTOR 0x40, CODE0, "offset 1f", "INT_GATE16 | DPL3"
    TRY
    RING 3, 3
    int 0x40
2:  int DONE
1:  mov eax, [esp]
    mov ecx, [esp + 4]
    movzx edx, word ptr [esp + 8]
    mov ebp, esp
    CATCH NOTHING, 0, "INT through a 16-bit interrupt gate"
    IS eax, "CODE3 * 0x10000 + offset 2b", "CS:IP pushed"
    IS ecx, "((STACK3 & 0xffff) * 0x10000 + 3)", "SP and FLAGS pushed"
    IS edx, DATA3, "SS pushed"
    IS ebp, "STACK0 - 0x1000 - 10", "SP in the handler"
    # A 16-bit trap gate at the same level, and back with a 16-bit IRET.
    VECTOR 0x40, CODE0, "offset 1f", "TRAP_GATE16"
    mov ebp, esp
    TRY
    int 0x40
    jmp 2f
1:  iretw
2:  mov eax, esp
    CATCH NOTHING, 0, "16-bit trap gate and IRETW"
    IS eax, ebp, "ESP after IRETW"
    # Conforming handlers stay in ring 3.
    VECTOR 0x40, CONF0, "offset 1f", "INT_GATE32 | DPL3"
    TRY
    RING 3, 2
    int 0x40
    int DONE
1:  mov ax, cs
    mov [saved], ax
    mov [saved + 4], esp
    int DONE
    CATCH DONE, 0, "conforming handler"
    ISW "[saved]", "CONF0 + 3", "CS of a conforming handler"
    IS "dword ptr [saved + 4]", "STACK3 - 12", "no switch of stacks"
    # To ring 1, and IRET back to ring 3 with all flags that it may change.
    VECTOR 0x40, CODE1, "offset 1f", "INT_GATE32 | DPL3"
    TRY
    RING 3, 0x203
    int 0x40
    pushfd
    pop [saved + 8]
    int DONE
1:  mov ax, cs
    mov [saved], ax
    mov [saved + 4], esp
    or dword ptr [esp + 8], 0x3000 + DF     # IOPL is not ring 1's to change
    or dword ptr [esp + 8], IF              # nor is IF, with IOPL 0
    iretd
    CATCH DONE, 0, "handler in ring 1"
    ISW "[saved]", CODE1, "CS of a handler in ring 1"
    IS "dword ptr [saved + 4]", "STACK1 - 20", "ESP of a handler in ring 1"
    IS "dword ptr [saved + 8]", 0x403, "flags after IRET from ring 1"
    # POPF in ring 3 changes neither IOPL nor IF; with IOPL 3 it changes IF.
    TRY
    RING 3, 0x202
    push 0x3003
    popfd
    pushfd
    pop eax
    mov [saved], eax
    int DONE
    CATCH DONE, 0, "POPF in ring 3"
    IS "dword ptr [saved]", 0x203, "flags after POPF in ring 3"
    TRY
    RING 3, 0x3202
    push 0x3
    popfd
    pushfd
    pop eax
    mov [saved], eax
    int DONE
    CATCH DONE, 0, "POPF in ring 3 with IOPL 3"
    IS "dword ptr [saved]", 0x3003, "flags after POPF in ring 3 with IOPL 3"
    # INTO and BOUND.
    xor eax, eax
    WORKS "into"
    VECTOR 4, CODE0, "offset vectors + 4 * VECTOR_SIZE", "INT_GATE32 | DPL3"
    TRY
    mov al, 0x7f
    inc al
91: into
92: CATCH 4, 0, "INTO"
    IS "dword ptr [frame + F_EIP]", "offset 92b", "EIP of INTO is the next"
    mov dword ptr [saved], 1
    mov dword ptr [saved + 4], 5
    mov eax, 5
    WORKS "bound eax, [saved]"
    mov eax, 6
    FAULTS 5, 0, "bound eax, [saved]"
    ret

interrupt_errors:
    VECTOR 0x40, CODE0, "offset main", "INT_GATE32 & ~PRESENT"
    FAULTS 11, "0x40 * 8 + 2", "int 0x40"
    VECTOR 0x40, CODE0, "offset main", "CALL_GATE32"
    FAULTS 13, "0x40 * 8 + 2", "int 0x40"
    VECTOR 0x40, CODE0, "offset main", "INT_GATE32"
    FAULTS3 13, "0x40 * 8 + 2", "int 0x40"
    VECTOR 0x40, 0, "offset main", "INT_GATE32"
    FAULTS 13, 0, "int 0x40"
    VECTOR 0x40, DATA0, "offset main", "INT_GATE32"
    FAULTS 13, DATA0, "int 0x40"
    VECTOR 0x40, 0x200, "offset main", "INT_GATE32"
    FAULTS 13, 0x200, "int 0x40"
    VECTOR 0x40, CODE1, "offset main", "INT_GATE32"
    FAULTS 13, "CODE1 & ~3", "int 0x40"
    DESC TARGET, 0, 0xfffff, "RX_CODE & ~PRESENT", "BIG | PAGES"
    VECTOR 0x40, TARGET, "offset main", "INT_GATE32"
    FAULTS 11, TARGET, "int 0x40"
    DESC TARGET, 0, 0, RX_CODE, "BIG | PAGES"
    NOT_ON_TCG 1f
    VECTOR 0x40, TARGET, 0x1000, "INT_GATE32"
    FAULTS 13, 0, "int 0x40"
1:  # The same for an exception has EXT.
    NOT_ON_TCG 1f
    DESC TARGET, 0, 0xfffff, "RX_CODE & ~PRESENT", "BIG | PAGES"
    VECTOR 6, TARGET, "offset main", INT_GATE32
    FAULTS 11, "TARGET + 1", "ud2"
    VECTOR 6, 0, "offset main", INT_GATE32
    FAULTS 13, 1, "ud2"
    VECTOR 6, CODE0, "offset main", "INT_GATE32 & ~PRESENT"
    FAULTS 11, "6 * 8 + 3", "ud2"
1:
    VECTOR 6, CODE0, "offset vectors + 6 * VECTOR_SIZE", INT_GATE32
    ret

# IRET and RETF to outer levels: segments of inner levels are nulled.
returns:
    .macro OUTWARD insn, flags
    TRY
    mov ax, DATA0
    mov fs, ax
    mov ax, DATA2
    mov gs, ax
    mov ax, CONF0
    mov es, ax
    push DATA3
    push STACK3
    .if \flags
        push 0x202
    .endif
    push CODE3
    push offset 1f
    mov ax, DATA3
    mov ds, ax
    \insn
1:  int DONE
    CATCH DONE, 0, "\insn to ring 3"
    ISW "[frame + F_FS]", 0, "\insn: FS of DPL 0 is nulled"
    ISW "[frame + F_GS]", 0, "\insn: GS of DPL 2 is nulled"
    ISW "[frame + F_ES]", CONF0, "\insn: conforming ES stays"
    ISW "[frame + F_DS]", DATA3, "\insn: DS of DPL 3 stays"
    IS "dword ptr [frame + F_ESP]", STACK3, "\insn: ESP"
    IS "dword ptr [frame + F_SS]", DATA3, "\insn: SS"
    .endm
    OUTWARD "iretd", 1
    OUTWARD "retf", 0
    # To ring 2, where GS may stay.
    TRY
    mov ax, DATA1
    mov fs, ax
    mov ax, DATA2
    mov gs, ax
    push DATA2
    push STACK2
    push CODE2
    push offset 1f
    mov ax, DATA3
    mov ds, ax
    retf
1:  mov ax, fs
    mov [saved], ax
    mov ax, gs
    mov [saved + 2], ax
    int DONE
    CATCH DONE, 0, "RETF to ring 2"
    ISW "[saved]", 0, "FS of DPL 1 is nulled"
    ISW "[saved + 2]", DATA2, "GS of DPL 2 stays"
    IS "dword ptr [frame + F_CS]", CODE2, "CS in ring 2"
    # To 16-bit code on a 16-bit stack: the upper half of ESP stays ring 0's.
    TRY
    push STACK16_3 + 3
    push 0x8000
    push 2
    push CODE16_3 + 3
    push offset 1f
    iretd
.code16
1:  mov eax, esp
    push ax
    pop ax
    int DONE
.code32
    CATCH DONE, 0, "IRET to 16-bit code"
    ISW "[frame + F_ESP]", 0x8000, "SP in 16-bit code"
    ISW "[frame + F_EAX]", 0x8000, "AX in 16-bit code"
    # A 32-bit RETF n to an outer level releases from both stacks.
    TRY
    push DATA3
    push STACK3
    push 1
    push 2
    push CODE3
    push offset 1f
    retf 8
1:  int DONE
    CATCH DONE, 0, "RETF 8 to ring 3"
    IS "dword ptr [frame + F_ESP]", "STACK3 + 8", "RETF 8: ESP"
    # A 16-bit one.
    TRY
    pushw DATA3
    pushw 0x9000
    pushw CODE3
    pushw offset 1f
    data16 retf
1:  int DONE
    CATCH DONE, 0, "16-bit RETF to ring 3"
    IS "dword ptr [frame + F_ESP]", 0x9000, "16-bit RETF: ESP"
    ret

return_errors:
    .macro BAD insn, flags, vector, error, ss, esp, cs, eip
    TRY
    push \ss
    push \esp
    .if \flags
        push 2
    .endif
    push \cs
    push \eip
    mov [saved], esp
91: \insn
    int DONE
    mov eax, 0
    CATCH "\vector", "\error", "\insn to \cs:\eip, \ss:\esp"
    IS "dword ptr [frame + F_EIP]", "offset 91b", "\insn to \cs:\eip, \ss:\esp: EIP"
    .endm
    .macro BOTH vector, error, ss, esp, cs, eip
    BAD iretd, 1, "\vector", "\error", "\ss", "\esp", "\cs", "\eip"
    BAD retf, 0, "\vector", "\error", "\ss", "\esp", "\cs", "\eip"
    .endm
    BOTH 13, 0, DATA3, STACK3, 0, 0
    BOTH 13, 0, DATA3, STACK3, 3, 0
    BOTH 13, 0x200, DATA3, STACK3, 0x203, 0
    BOTH 13, "DATA3 & ~3", DATA3, STACK3, DATA3, 0
    BOTH 13, CODE0, DATA3, STACK3, "CODE0 + 3", 0
    BOTH 13, "CODE3 & ~3", DATA3, STACK3, "CODE3 & ~3", 0
    BOTH 13, 0, 0, STACK3, CODE3, 0
    BOTH 13, DATA0, DATA0, STACK3, CODE3, 0
    BOTH 13, "DATA3 & ~3", "DATA3 & ~3", STACK3, CODE3, 0
    BOTH 13, "CODE3 & ~3", "CODE3", STACK3, CODE3, 0
    BOTH 13, "DATA2 & ~3", "DATA2", STACK3, CODE3, 0
    DESC TARGET, 0, 0xfffff, "(RX_CODE | DPL3) & ~PRESENT", "BIG | PAGES"
    BOTH 11, TARGET, DATA3, STACK3, "TARGET + 3", 0
    NOT_ON_TCG 1f               # it has #NP for a stack that is not present, and checks no limits
    DESC BAD_STACK, 0, 0xfffff, "(RW_DATA | DPL3) & ~PRESENT", "BIG | PAGES"
    BOTH 12, BAD_STACK, "BAD_STACK + 3", STACK3, CODE3, 0
    DESC TARGET, 0, 0xfff, "RX_CODE | DPL3", BIG
    BOTH 13, 0, DATA3, STACK3, "TARGET + 3", 0x1000
    DESC TARGET, 0, 0xfff, "RX_CODE", BIG
    BOTH 13, 0, DATA3, STACK3, TARGET, 0x1000
1:  # Inward returns are not possible.
    FAULTS3 13, CODE0, "push CODE0; push 0; 91: retf"
    FAULTS3 13, CODE0, "push 2; push CODE0; push 0; 91: iretd"
    ret

.bss
.balign 4
saved: .skip 64
