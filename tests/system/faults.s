# Double faults, #AC, invalid opcodes, LOCK, the length of instructions, SYSENTER, CPUID, MSRs, control
# registers.
.include "guest.inc"

.set AM, 0x40000
.set PAGING, 0x80000000

main:
    call double
    call alignment
    call opcodes
    call locks
    call lengths
    call fast_calls
    call exchange
    call identity
    call control
    ret

# A double fault: error code 0; the task that handles it can do so whatever the stack is.
double:
    # #GP whose handler's segment is not there.
    VECTOR 13, 0, "offset main", INT_GATE32
    TRY
    mov ax, 0x1f8
    mov fs, ax
    CATCH 8, 0, "#GP in #GP"
    # #UD is benign: what goes wrong in its delivery comes by itself.
    VECTOR 13, CODE0, "offset vectors + 13 * VECTOR_SIZE", INT_GATE32
    VECTOR 6, 0x1f8, "offset main", INT_GATE32
    TRY
    ud2
    NOT_ON_TCG 1f
    CATCH 13, 0x1f9, "#GP in #UD"
1:  VECTOR 6, CODE0, "offset vectors + 6 * VECTOR_SIZE", INT_GATE32
    # #DE and #NP are contributory.
    VECTOR 0, CODE0, "offset vectors", "INT_GATE32 & ~PRESENT"
    TRY
    xor ecx, ecx
    div ecx
    CATCH 8, 0, "#NP in #DE"
    VECTOR 0, CODE0, "offset vectors", INT_GATE32
    # From ring 3 with a bad stack for ring 0: #TS while #GP, so double; that needs a task.
    DESC FREE, 0x41000, 0x67, TSS_32, 0
    mov edi, 0x41000
    xor eax, eax
    mov ecx, 26
    rep stosd
    mov dword ptr [0x41000 + 32], offset double_task
    mov dword ptr [0x41000 + 36], 2
    mov dword ptr [0x41000 + 56], 0x39000
    mov dword ptr [0x41000 + 72], DATA0
    mov dword ptr [0x41000 + 76], CODE0
    mov dword ptr [0x41000 + 80], DATA0
    mov dword ptr [0x41000 + 84], DATA0
    VECTOR 8, FREE, 0, TASK_GATE
    mov dword ptr [tss0 + 8], 0
    TRY
    RING 3
91: cli
double_task:
    pop eax
    mov [seen], eax
    mov dword ptr [tss0 + 8], DATA0
    int DONE
    CATCH DONE, 0, "a double fault's task"
    IS "dword ptr [seen]", 0, "a double fault's error code"
    IS "dword ptr [tss0 + 32]", "offset 91b", "EIP saved by a double fault"
    ISW "[tss0 + 76]", CODE3, "CS saved by a double fault"
    pushfd
    and dword ptr [esp], ~NT
    popfd
    DESC TSS0, "offset tss0", 0x67, TSS_32, 0
    mov ax, TSS0
    ltr ax
    clts
    VECTOR 8, CODE0, "offset vectors + 8 * VECTOR_SIZE", INT_GATE32
    # With paging: a page fault while a page fault is delivered.
    mov edi, 0x101000
    mov eax, 7
    mov ecx, 1024
1:  stosd
    add eax, 0x1000
    loop 1b
    mov dword ptr [0x100000], 0x101007
    mov eax, 0x100000
    mov cr3, eax
    mov eax, cr0
    or eax, PAGING
    mov cr0, eax
    jmp 1f
1:  VECTOR 8, FREE, 0, TASK_GATE
    DESC FREE, 0x41000, 0x67, TSS_32, 0
    mov dword ptr [0x41000 + 28], 0x100000
    mov dword ptr [0x41000 + 32], offset double_page
    mov dword ptr [0x41000 + 36], 2
    mov dword ptr [0x41000 + 56], 0x39000
    mov dword ptr [tss0 + 28], 0x100000
    mov dword ptr [tss0 + 4], 0x500100
    TRY
    RING 3
91: mov eax, [0x600000]
double_page:
    pop eax
    mov [seen], eax
    mov dword ptr [tss0 + 4], STACK0 - 0x1000
    int DONE
    CATCH DONE, 0, "a page fault in a page fault"
    IS "dword ptr [seen]", 0, "its error code"
    IS "dword ptr [caught_cr2]", 0x5000fc, "CR2 is the second's"
    IS "dword ptr [tss0 + 32]", "offset 91b", "EIP saved"
    pushfd
    and dword ptr [esp], ~NT
    popfd
    DESC TSS0, "offset tss0", 0x67, TSS_32, 0
    mov ax, TSS0
    ltr ax
    clts
    VECTOR 8, CODE0, "offset vectors + 8 * VECTOR_SIZE", INT_GATE32
    mov eax, cr3
    mov cr3, eax
    mov eax, cr0
    and eax, ~PAGING
    mov cr0, eax
    jmp 1f
1:  ret

alignment:
    mov eax, cr0
    or eax, AM
    mov cr0, eax
    mov dword ptr [seen], offset seen
    FAULTS3 17, 0, "mov eax, [seen + 1]", AC+2
    FAULTS3 17, 0, "mov [seen + 2], eax", AC+2
    FAULTS3 17, 0, "mov ax, [seen + 3]", AC+2
    FAULTS3 17, 0, "add [seen + 1], eax", AC+2
    WORKS3 "mov ax, [seen + 2]", AC+2
    WORKS3 "mov al, [seen + 1]", AC+2
    WORKS3 "mov eax, [seen + 4]", AC+2
    NOT_ON_TCG 1f
    FAULTS3 17, 0, "fld qword ptr [seen + 4]", AC+2
    WORKS3 "fld qword ptr [seen + 8]", AC+2
1:  FAULTS3 17, 0, "mov esp, offset seen + 6; 91: push eax", AC+2
    WORKS3 "mov eax, [seen + 1]", 2
    WORKS "mov eax, [seen + 1]"
    # Not in ring 0, even with AC.
    TRY
    push AC + 2
    popfd
    mov eax, [seen + 1]
    push 2
    popfd
    CATCH NOTHING, 0, "AC in ring 0"
    # Not of the processor's own accesses.
    WORKS3 "mov ax, DATA3; mov fs, ax", AC+2
    # An instruction over two pages with AC on.
    TRY
    mov dword ptr [0x40ffe], 0x332211b8
    mov word ptr [0x40ffe], 0x11b8
    mov dword ptr [0x41000], 0x30cd4433
    mov dword ptr [0x41000], 0xcd443322
    mov byte ptr [0x41004], DONE
    RING 3, AC+2
    mov eax, 0x40ffe
    jmp eax
    CATCH DONE, 0, "code over two pages with AC"
    IS "dword ptr [frame + F_EAX]", 0x44332211, "code over two pages with AC: EAX"
    mov eax, cr0
    and eax, ~AM
    mov cr0, eax
    WORKS3 "mov eax, [seen + 1]", AC+2
    ret

opcodes:
    .macro UD bytes:vararg
    TRY
91: .byte \bytes
    nop
    nop
    nop
    nop
    nop
    nop
    nop
    CATCH 6, 0, "\bytes"
    IS "dword ptr [frame + F_EIP]", "offset 91b", "\bytes: EIP"
    .endm
    UD 0x0f, 0x0b
    UD 0x0f, 0xff, 0xc0
    UD 0x0f, 0xb9, 0xc0
    UD 0xfe, 0xd0
    UD 0xff, 0xf8
    UD 0xff, 0xd8               # far call of a register
    UD 0xff, 0xe8               # far jump of a register
    UD 0x8d, 0xc0               # LEA of a register
    UD 0xc4, 0xc0               # LES of a register
    UD 0x62, 0xc0               # BOUND of a register
    UD 0x8e, 0xc8               # MOV CS, AX
    UD 0x8e, 0xf0               # a segment register that there is not
    UD 0x8c, 0xf0
    UD 0x0f, 0xb2, 0xc0         # LSS of a register
    UD 0x0f, 0x01, 0xc0 | 0x10  # LGDT of a register
    UD 0x0f, 0xc7, 0xc8         # CMPXCHG8B of a register
    UD 0x0f, 0x20, 0xc8         # CR1
    UD 0x0f, 0x20, 0xe8         # CR5
    UD 0x0f, 0x04
    UD 0x0f, 0x24, 0xc0
    UD 0x8f, 0xc8               # POP /1
    UD 0xc6, 0xc8               # MOV /1
    UD 0x0f, 0x00, 0xf0
    UD 0x0f, 0xba, 0xc0, 1
    ret

locks:
    .macro LOCKED bytes:vararg
    mov ebx, offset seen
    UD 0xf0, \bytes
    .endm
    LOCKED 0x89, 0x03           # MOV
    LOCKED 0x03, 0x03           # ADD EAX, [EBX]
    LOCKED 0x01, 0xd8           # ADD EAX, EBX
    LOCKED 0x39, 0x03           # CMP
    LOCKED 0x85, 0x03           # TEST
    LOCKED 0x90
    LOCKED 0x0f, 0xa3, 0x03     # BT
    LOCKED 0xf7, 0x23           # MUL
    LOCKED 0xd1, 0x23           # SHL
    LOCKED 0xff, 0x33           # PUSH
    LOCKED 0x0f, 0xc1, 0xd8     # XADD of a register
    LOCKED 0x40                 # INC EAX
    LOCKED 0xa4                 # MOVSB
    LOCKED 0xcd, 0x40
    LOCKED 0xfa
    mov ebx, offset seen
    xor eax, eax
    mov ecx, 1
    WORKS "lock add [ebx], eax"
    WORKS "lock inc dword ptr [ebx]"
    WORKS "lock not dword ptr [ebx]"
    WORKS "lock neg dword ptr [ebx]"
    WORKS "lock xchg [ebx], eax"
    WORKS "lock bts [ebx], ecx"
    WORKS "lock btc dword ptr [ebx], 1"
    WORKS "lock xadd [ebx], eax"
    WORKS "lock cmpxchg [ebx], eax"
    WORKS "lock cmpxchg8b [ebx]"
    ret

# Fifteen bytes are the most; also where a page ends.
lengths:
    TRY
    .fill 14, 1, 0x66
    nop
    CATCH NOTHING, 0, "fifteen bytes"
    TRY
91: .fill 15, 1, 0x66
    nop
    CATCH 13, 0, "sixteen bytes"
    IS "dword ptr [frame + F_EIP]", "offset 91b", "sixteen bytes: EIP"
    TRY
91: .fill 9, 1, 0x2e
    .byte 0xc7, 0x05            # MOV DWORD PTR [disp32], imm32
    .long seen, 1
    CATCH 13, 0, "nineteen bytes"
    TRY
91: .fill 5, 1, 0x3e
    .byte 0xc7, 0x05
    .long seen, 1
    CATCH NOTHING, 0, "fifteen bytes of MOV"
    # Fifteen prefixes up to the end of a page whose successor is missing: #GP, no #PF.
    mov edi, 0x101000
    mov eax, 7
    mov ecx, 1024
1:  stosd
    add eax, 0x1000
    loop 1b
    mov dword ptr [0x100000], 0x101007
    mov dword ptr [0x101000 + 0x301 * 4], 0
    mov eax, 0x100000
    mov cr3, eax
    mov eax, cr0
    or eax, PAGING
    mov cr0, eax
    jmp 1f
1:  mov edi, 0x300f00
    mov ecx, 0x100
    mov al, 0x66
    rep stosb
    TRY
    mov eax, 0x300ff1
    jmp eax
    CATCH 13, 0, "fifteen prefixes at the end of a page"
    TRY
    mov eax, 0x300ff2
    jmp eax
    CATCH 14, 0, "fourteen prefixes at the end of a page"
    IS "dword ptr [caught_cr2]", 0x301000, "fourteen prefixes: CR2"
    IS "dword ptr [frame + F_EIP]", 0x300ff2, "fourteen prefixes: EIP"
    # An opcode that is invalid by its first bytes does not need the next page.
    mov word ptr [0x300ffe], 0x0b0f
    TRY
    mov eax, 0x300ffe
    jmp eax
    CATCH 6, 0, "UD2 at the end of a page"
    # One that is complete there runs, and the next faults.
    mov word ptr [0x300ffe], 0xc031
    TRY
    mov eax, 0x300ffe
    jmp eax
    CATCH 14, 0, "the next instruction is in the missing page"
    IS "dword ptr [frame + F_EIP]", 0x301000, "the next instruction: EIP"
    IS "dword ptr [frame + F_EAX]", 0, "the last one has run"
    # The limit is where the page ends: #GP comes before #PF.
    NOT_ON_TCG 1f
    DESC FREE+8, 0x300000, 0xfff, RX_CODE, BIG
    mov byte ptr [0x300fff], 0xb8
    TRY
    ljmp FREE+8, 0xfff
    CATCH 13, 0, "limit and page end together"
    IS "dword ptr [frame + F_EIP]", 0xfff, "limit and page end together: EIP"
1:  mov eax, cr0
    and eax, ~PAGING
    mov cr0, eax
    jmp 1f
1:  ret


.macro MSR number, value
    mov ecx, \number
    mov eax, \value
    xor edx, edx
    wrmsr
.endm

fast_calls:
    .set FAST, FREE + 8         # CS0 SS0 CS3 SS3
    DESC FAST, 0, 0xfffff, RX_CODE, "BIG | PAGES"
    DESC FAST+8, 0, 0xfffff, RW_DATA, "BIG | PAGES"
    DESC FAST+16, 0, 0xfffff, "RX_CODE | DPL3", "BIG | PAGES"
    DESC FAST+24, 0, 0xfffff, "RW_DATA | DPL3", "BIG | PAGES"
    MSR 0x174, 0
    FAULTS3 13, 0, "sysenter"
    FAULTS 13, 0, "sysexit"
    MSR 0x174, FAST
    MSR 0x175, 0x3a900
    MSR 0x176, "offset entry"
    mov ecx, 0x174
    rdmsr
    IS eax, FAST, "MSR 174"
    mov ecx, 0x176
    rdmsr
    IS eax, "offset entry", "MSR 176"
    TRY
    RING 3, IF+2
    mov ecx, esp
    mov edx, offset 1f
    sysenter
1:  mov ax, cs
    shl eax, 16
    mov ax, ss
    int DONE
entry:
    pushfd
    pop [seen]
    mov [seen + 4], esp
    mov [seen + 8], cs
    mov [seen + 12], ss
    sysexit
    CATCH DONE, 0, "SYSENTER and SYSEXIT"
    mov eax, [seen]
    and eax, IF
    IS eax, 0, "IF after SYSENTER"
    IS "dword ptr [seen + 4]", 0x3a900, "ESP after SYSENTER"
    ISW "[seen + 8]", FAST, "CS after SYSENTER"
    ISW "[seen + 12]", FAST+8, "SS after SYSENTER"
    IS "dword ptr [frame + F_EAX]", "((FAST+19) << 16) + FAST + 27", "CS and SS after SYSEXIT"
    IS "dword ptr [frame + F_ESP]", STACK3, "ESP after SYSEXIT"
    FAULTS3 13, 0, "sysexit"
    ret

exchange:
    mov dword ptr [seen], 0x11111111
    mov dword ptr [seen + 4], 0x22222222
    mov eax, 0x11111111
    mov edx, 0x22222222
    mov ebx, 0x33333333
    mov ecx, 0x44444444
    lock cmpxchg8b [seen]
    setz bl
    movzx ebx, bl
    IS ebx, 1, "CMPXCHG8B: ZF"
    IS "dword ptr [seen]", 0x33333333, "CMPXCHG8B: low"
    IS "dword ptr [seen + 4]", 0x44444444, "CMPXCHG8B: high"
    stc
    cmpxchg8b [seen]
    pushfd
    pop ebx
    and ebx, ZF | CF
    IS ebx, CF, "CMPXCHG8B: only ZF changes"
    IS eax, 0x33333333, "CMPXCHG8B: EAX"
    IS edx, 0x44444444, "CMPXCHG8B: EDX"
    ret

# The identity that the machine-state format fixes (7.4), not QEMU's.
identity:
    NOT_ON_TCG 1f
    .macro LEAF leaf, sub, a, b, c, d
    mov eax, \leaf
    mov ecx, \sub
    cpuid
    IS eax, "\a", "CPUID \leaf.\sub: EAX"
    IS ebx, "\b", "CPUID \leaf.\sub: EBX"
    IS ecx, "\c", "CPUID \leaf.\sub: ECX"
    and edx, ~0x200             # the local APIC may be there
    IS edx, "\d", "CPUID \leaf.\sub: EDX"
    .endm
    LEAF 0, 0, 0x16, 0x756e6547, 0x6c65746e, 0x49656c69
    LEAF 1, 0, 0x673, 0x10800, 0xc0800001, 0x0780a979
    LEAF 2, 0, 0x665b5001, 0, 0, 0x7a7000
    LEAF 4, 0, 0x121, 0x1c0003f, 0x3f, 1
    LEAF 4, 2, 0x143, 0x5c0003f, 0xfff, 1
    LEAF 4, 3, 0, 0, 0, 0
    LEAF 5, 0, 0x40, 0x40, 3, 0x142120
    LEAF 7, 0, 0, 0x200, 0, 0
    LEAF 7, 1, 0, 0, 0, 0
    LEAF 0x15, 0, 1, 1, 1000000000, 0
    LEAF 0x16, 0, 1000, 1000, 10, 0
    LEAF 0x17, 0, 0, 0, 0, 0
    LEAF 0x40000000, 0, 0, 0x61774d56, 0x4d566572, 0x65726177
    LEAF 0x80000000, 0, 5, 0, 0, 0
    LEAF 0x80000001, 0, 0, 0, 0, 0
    mov ecx, 0x1a0
    rdmsr
    IS eax, 1, "MSR 1A0"
    mov ecx, 0xce
    rdmsr
    IS eax, 0x100, "MSR CE"
    WORKS "mov ecx, 0x12345; rdmsr"
    WORKS "mov ecx, 0x12345; wrmsr"
    WORKS "mov ecx, 1; rdpmc"
    inc ecx
    FAULTS 13, 0, "rdpmc"
1:  # The TSC goes up, can be set, and can be kept from ring 3.
    rdtsc
    mov ebx, eax
    rdtsc
    cmp eax, ebx
    setae al
    movzx eax, al
    IS eax, 1, "the TSC goes up"
    mov ecx, 0x10
    mov eax, 0x1000
    mov edx, 0x55
    wrmsr
    rdtsc
    IS edx, 0x55, "the TSC as set"
    WORKS3 "rdtsc"
    mov eax, 4                  # TSD
    mov cr4, eax
    FAULTS3 13, 0, "rdtsc"
    WORKS "rdtsc"
    xor eax, eax
    mov cr4, eax
    # The ID flag can be changed.
    pushfd
    xor dword ptr [esp], 0x200000
    mov ebx, [esp]
    popfd
    pushfd
    pop eax
    xor eax, ebx
    and eax, 0x200000
    IS eax, 0, "EFLAGS.ID"
    ret

control:
    mov eax, cr0
    mov ebx, eax
    mov ecx, eax
    or ecx, PAGING
    and ecx, ~1                 # PG without PE
    FAULTS 13, 0, "mov cr0, ecx"
    mov eax, cr0
    and eax, ~0x40000000
    or eax, 0x20000000          # NW without CD
    mov ecx, eax
    NOT_ON_TCG 1f
    FAULTS 13, 0, "mov cr0, ecx"
    mov ecx, 0x80000000
    FAULTS 13, 0, "mov cr4, ecx"
1:  mov eax, cr0
    IS eax, ebx, "CR0 is as it was"
    and eax, ~0x10              # ET
    mov cr0, eax
    mov eax, cr0
    IS eax, ebx, "CR0.ET stays"
    # LMSW sets PE, cannot clear it; changes MP, EM and TS.
    mov ax, 0xe
    lmsw ax
    mov eax, cr0
    and eax, 0xf
    IS eax, 0xf, "LMSW"
    xor eax, eax
    lmsw ax
    mov eax, cr0
    and eax, 0xf
    IS eax, 1, "LMSW does not clear PE"
    mov eax, 0x12345678
    mov cr2, eax
    mov ecx, cr2
    IS ecx, 0x12345678, "CR2"
    ret

.bss
.balign 8
seen: .skip 64
