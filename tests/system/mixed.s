# What the other guests leave: faults of the processor's own accesses during switches and deliveries,
# 16-bit stacks, restarts across levels.
.include "guest.inc"

.set PAGING, 0x80000000
.set DIRECTORY, 0x100000
.set TABLE0, 0x101000
.set HOLE, 0x500000             # a page that is not present, and one after it that is
.set TSS_B, FREE
.set GATE0, FREE + 8
.set DOWN_STACK, FREE + 16
.set STACK16_1, FREE + 24

main:
    mov edi, TABLE0
    mov eax, 7
    mov ecx, 2048
1:  stosd
    add eax, 0x1000
    loop 1b
    mov dword ptr [DIRECTORY], TABLE0 + 7
    mov dword ptr [DIRECTORY + 4], TABLE0 + 0x1007
    mov dword ptr [TABLE0 + 0x500 * 4], 0
    mov eax, DIRECTORY
    mov cr3, eax
    mov dword ptr [tss0 + 28], DIRECTORY
    mov eax, cr0
    or eax, PAGING
    mov cr0, eax
    jmp 1f
1:
    call tasks
    call deliveries
    call stacks
    mov eax, cr0
    and eax, ~PAGING
    mov cr0, eax
    jmp 1f
1:  ret

# A new TSS that is not there, in whole or in part: the fault is the old task's.
tasks:
    NOT_ON_TCG 1f               # it reads what it needs, when it needs it
    DESC TSS_B, HOLE, 0x67, TSS_32, 0
    FAULTS 14, 0, "ljmp TSS_B, 0"
    ISB "[gdt + TSS_B + 5]", TSS_32, "not busy after a page fault"
    ISB "[gdt + TSS0 + 5]", "TSS_32 + 2", "the first task is still busy"
    str eax
    IS eax, TSS0, "TR is as it was"
    DESC TSS_B, HOLE+0xff0, 0x67, TSS_32, 0
    FAULTS 14, 0, "ljmp TSS_B, 0"
    DESC TSS_B, HOLE-0x10, 0x67, TSS_32, 0
    FAULTS 14, 0, "ljmp TSS_B, 0"
    IS "dword ptr [caught_cr2]", HOLE, "CR2 of a TSS"
1:  ret

# Deliveries whose tables or stacks are not there.
deliveries:
    # The IDT's second page is missing: a fault of INT, at INT.
    mov esi, offset idt
    mov edi, HOLE - 0x100
    mov ecx, 64
    rep movsd
    mov word ptr [table], 0x7ff
    mov dword ptr [table + 2], HOLE - 0x100
    lidt [table]
    TRY
91: int 0x40
    CATCH 14, 0, "an IDT entry in a missing page"
    IS "dword ptr [caught_cr2]", "HOLE + 0x100", "CR2 of an IDT entry"
    IS "dword ptr [frame + F_EIP]", "offset 91b", "EIP of INT"
    lidt [idtr]
    # Ring 1's stack is missing when INT pushes: a page fault of INT, not a double fault.
    mov dword ptr [tss0 + 12], HOLE + 0x100
    VECTOR 0x40, CODE1, "offset main", "INT_GATE32 | DPL3"
    FAULTS3 14, 2, "int 0x40"
    IS "dword ptr [caught_cr2]", "HOLE + 0xfc", "CR2 of INT's stack"
    IS "dword ptr [frame + F_ESP]", STACK3, "ESP of INT"
    # In the middle: it begins in the page that is there.
    mov dword ptr [tss0 + 12], HOLE + 0x1008
    FAULTS3 14, 2, "int 0x40"
    IS "dword ptr [caught_cr2]", "HOLE + 0xffc", "CR2 of INT's stack in the middle"
    # With the page there, the same INT works.
    mov dword ptr [TABLE0 + 0x500 * 4], HOLE + 7
    invlpg [HOLE]
    VECTOR 0x40, CODE1, "offset 1f", "INT_GATE32 | DPL3"
    TRY
    RING 3, 0x202
    int 0x40
    int DONE
1:  mov eax, [esp + 12]
    int DONE
    CATCH DONE, 0, "INT restarted"
    IS "dword ptr [frame + F_EAX]", STACK3, "ESP saved"
    IS "dword ptr [frame + F_ESP]", "HOLE + 0x1008 - 20", "ESP in ring 1"
    IS "dword ptr [HOLE + 0x1004]", DATA3, "SS saved"
    mov dword ptr [TABLE0 + 0x500 * 4], 0
    invlpg [HOLE]
    mov dword ptr [tss0 + 12], STACK1
    VECTOR 0x40, CODE0, "offset vectors + 0x40 * VECTOR_SIZE", "INT_GATE32 | DPL3"
    ret

stacks:
    # An expand-down stack for ring 1, met from virtual-8086 mode's and ring 3's side.
    DESC DOWN_STACK, 0, 0x3afff, "DOWN_DATA | DPL1", BIG
    mov dword ptr [tss0 + 16], DOWN_STACK + 1
    mov dword ptr [tss0 + 12], 0x3b100
    GATE GATE0, CODE1, "offset 1f", "CALL_GATE32 | DPL3"
    TRY
    RING 3
    lcall GATE0, 0
1:  mov ax, ss
    int DONE
    CATCH DONE, 0, "an expand-down stack"
    ISW "[frame + F_EAX]", "DOWN_STACK + 1", "SS"
    NOT_ON_TCG 1f
    mov dword ptr [tss0 + 12], 0x3b00c
    FAULTS3 12, DOWN_STACK, "lcall GATE0, 0"
1:  # A 16-bit stack for ring 1: SP wraps at 64 KiB, the upper half of ESP does not count.
    DESC STACK16_1, 0x40000, 0xffff, "RW_DATA | DPL1", 0
    mov dword ptr [tss0 + 16], STACK16_1 + 1
    mov dword ptr [tss0 + 12], 0x12348000
    TRY
    RING 3
    lcall GATE0, 0              # ring 1 ends it at the label above
    CATCH DONE, 0, "a 16-bit stack"
    ISW "[frame + F_ESP]", "0x8000 - 16", "SP"
    IS "dword ptr [0x48000 - 4]", DATA3, "SS pushed"
    IS "dword ptr [0x48000 - 8]", STACK3, "ESP pushed"
    mov dword ptr [tss0 + 12], STACK1
    mov dword ptr [tss0 + 16], DATA1
    ret

.bss
.balign 4
table: .skip 8
