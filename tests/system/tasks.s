# Hardware task switches: JMP, CALL, task gates, IRET; 32- and 16-bit; busy bits, NT, back links; what a
# TSS holds; faults before and after the switch.
.include "guest.inc"

.set TSS_B, FREE
.set TSS_C, FREE + 8
.set TSS_H, FREE + 16           # handles #TS and others by a task gate
.set GATE_B, FREE + 24
.set TSS_W, FREE + 32           # 16 bits
.set LDT_B, FREE + 40
.set ABSENT, FREE + 48
.set TSS_BAD, FREE + 56

.set B, 0x41000
.set C, 0x42000
.set H, 0x43000
.set W, 0x44000

# Offsets in a 32-bit TSS.
.set T_LINK, 0
.set T_CR3, 28
.set T_EIP, 32
.set T_EFLAGS, 36
.set T_EAX, 40
.set T_ECX, 44
.set T_ESP, 56
.set T_EDI, 68
.set T_ES, 72
.set T_CS, 76
.set T_SS, 80
.set T_DS, 84
.set T_FS, 88
.set T_GS, 92
.set T_LDT, 96
.set T_T, 100
.set T_IO, 102

# A fresh task in ring 0: its TSS, selector, entry, stack.
.macro TASK at, selector, entry, stack
    mov edi, \at
    xor eax, eax
    mov ecx, 26
    rep stosd
    mov dword ptr [\at + T_EIP], \entry
    mov dword ptr [\at + T_EFLAGS], 2
    mov dword ptr [\at + T_ESP], \stack
    mov dword ptr [\at + T_ES], DATA0
    mov dword ptr [\at + T_CS], CODE0
    mov dword ptr [\at + T_SS], DATA0
    mov dword ptr [\at + T_DS], DATA0
    mov word ptr [\at + T_IO], 0x68
    mov eax, cr3
    mov [\at + T_CR3], eax
    DESC "\selector", "\at", 0x67, TSS_32, 0
.endm
.macro TYPE_IS selector, type, text
    ISB "[gdt + \selector + 5]", "\type", "\text"
.endm

main:
    call jumps
    call calls
    call gates
    call contents
    call sixteen
    call refusals
    call late
    call levels
    ret

jumps:
    TASK B, TSS_B, "offset task_b", 0x39000
    mov dword ptr [B + T_EAX], 0xaaaa5555
    mov dword ptr [B + T_EDI], 0xd1d1d1d1
    mov dword ptr [B + T_EFLAGS], 0x403
    clts
    mov ebx, 0x600d
    mov edi, 0xfeed
    stc
    mov [saved_esp], esp
    ljmp TSS_B, 0x12345678
back:
    pushfd
    pop [seen + 44]
    IS ebx, 0x600d, "EBX of the first task is back"
    IS edi, 0xfeed, "EDI of the first task is back"
    mov eax, [saved_esp]
    IS esp, eax, "ESP of the first task is back"
    mov eax, [seen + 44]
    and eax, NT | CF
    NOT_ON_TCG 1f               # it loses the carry
    IS eax, CF, "flags of the first task are back"
1:
    IS "dword ptr [seen]", 0xaaaa5555, "EAX from the TSS"
    IS "dword ptr [seen + 4]", 0xd1d1d1d1, "EDI from the TSS"
    IS "dword ptr [seen + 8]", 0x403, "EFLAGS from the TSS, NT clear"
    IS "dword ptr [seen + 12]", TSS_B, "TR"
    IS "dword ptr [seen + 16]", 0x39000, "ESP from the TSS"
    mov eax, [seen + 20]
    and eax, 8
    IS eax, 8, "CR0.TS"
    IS "dword ptr [seen + 24]", TSS_32, "the left task is not busy"
    IS "dword ptr [seen + 28]", "TSS_32 + 2", "the new task is busy"
    IS "dword ptr [tss0 + T_EIP]", "offset back", "EIP saved"
    IS "dword ptr [tss0 + T_EDI]", 0xfeed, "EDI saved"
    ISW "[tss0 + T_CS]", CODE0, "CS saved"
    TYPE_IS TSS_B, TSS_32, "B is not busy after JMP"
    TYPE_IS TSS0, "TSS_32 + 2", "the first task is busy again"
    IS "dword ptr [B + T_EIP]", "offset b_left", "EIP of B saved"
    IS "dword ptr [B + T_EAX]", 0x7777, "EAX of B saved"
    ISW "[B + T_LINK]", 0, "JMP writes no back link"
    # Again: B goes on where it left.
    mov dword ptr [seen + 40], 0
    ljmp TSS_B, 0
    IS "dword ptr [seen + 40]", 0x1234, "B went on"
    clts
    ret
task_b:
    mov [seen], eax
    mov [seen + 4], edi
    mov [seen + 16], esp
    pushfd
    pop [seen + 8]
    cld
    xor eax, eax
    str ax
    mov [seen + 12], eax
    mov eax, cr0
    mov [seen + 20], eax
    movzx eax, byte ptr [gdt + TSS0 + 5]
    mov [seen + 24], eax
    movzx eax, byte ptr [gdt + TSS_B + 5]
    mov [seen + 28], eax
    mov eax, 0x7777
    ljmp TSS0, 0
b_left:
    mov dword ptr [seen + 40], 0x1234
    ljmp TSS0, 0

calls:
    TASK B, TSS_B, "offset called_b", 0x39000
    TASK C, TSS_C, "offset called_c", 0x39800
    mov dword ptr [seen + 40], 0
    lcall TSS_B, 0
    pushfd
    pop eax
    and eax, NT
    IS eax, 0, "NT is clear after IRET"
    ISW "[B + T_LINK]", TSS0, "back link"
    mov eax, [seen]
    and eax, NT
    IS eax, NT, "NT in a called task"
    IS "dword ptr [seen + 4]", "TSS_32 + 2", "the calling task stays busy"
    IS "dword ptr [seen + 8]", "TSS_32 + 2", "the called task is busy"
    TYPE_IS TSS_B, TSS_32, "a task is not busy after IRET"
    TYPE_IS TSS0, "TSS_32 + 2", "the first task is still busy"
    mov eax, [B + T_EFLAGS]
    and eax, NT
    IS eax, 0, "NT is saved clear by IRET"
    IS "dword ptr [B + T_EIP]", "offset b_returned", "EIP saved by IRET"
    # Once more: B calls C.
    lcall TSS_B, 0
    ISW "[C + T_LINK]", TSS_B, "back link of the second call"
    IS "dword ptr [seen + 40]", 3, "both ran"
    TYPE_IS TSS_B, TSS_32, "B is not busy"
    TYPE_IS TSS_C, TSS_32, "C is not busy"
    IS "dword ptr [seen + 12]", "TSS_32 + 2", "B is busy while C runs"
    clts
    ret
called_b:
    pushfd
    pop [seen]
    movzx eax, byte ptr [gdt + TSS0 + 5]
    mov [seen + 4], eax
    movzx eax, byte ptr [gdt + TSS_B + 5]
    mov [seen + 8], eax
    iretd
b_returned:
    or dword ptr [seen + 40], 1
    lcall TSS_C, 0
    iretd
called_c:
    or dword ptr [seen + 40], 2
    movzx eax, byte ptr [gdt + TSS_B + 5]
    mov [seen + 12], eax
    iretd

gates:
    TASK B, TSS_B, "offset gate_b", 0x39000
    # CALL and JMP through a task gate.
    GATE GATE_B, TSS_B, 0, TASK_GATE
    mov dword ptr [seen], 0
    lcall GATE_B, 0
    IS "dword ptr [seen]", 1, "CALL through a task gate"
    # INT through a task gate.
    VECTOR 0x40, TSS_B, 0, TASK_GATE
    mov esi, 0x51
    int 0x40
1:  IS "dword ptr [seen]", 2, "INT through a task gate"
    IS "dword ptr [tss0 + T_EIP]", "offset 1b", "EIP saved is the next"
    IS esi, 0x51, "ESI is back"
    mov eax, [tss0 + T_EFLAGS]
    and eax, RF
    IS eax, 0, "no RF for INT"
    # A fault: the error code is on the new stack, EIP is the instruction's.
    TASK B, TSS_B, "offset fault_b", 0x39000
    VECTOR 13, TSS_B, 0, TASK_GATE
    mov ecx, 0x1f8
2:  mov fs, cx
    nop
    nop
    IS "dword ptr [seen]", 0x1f8, "error code for a task"
    IS "dword ptr [seen + 4]", "offset 2b", "EIP saved for a task"
    IS "dword ptr [seen + 8]", "0x39000 - 4", "ESP in a task with an error code"
    NOT_ON_TCG 1f               # it sets RF for gates only
    mov eax, [seen + 12]
    and eax, RF
    IS eax, RF, "RF saved for a fault"
1:
    VECTOR 13, CODE0, "offset vectors + 13 * VECTOR_SIZE", INT_GATE32
    clts
    ret
gate_b:
    inc dword ptr [seen]
    iretd
    jmp gate_b
fault_b:
    mov [seen + 8], esp
    pop [seen]
    mov eax, [tss0 + T_EIP]
    mov [seen + 4], eax
    mov eax, [tss0 + T_EFLAGS]
    mov [seen + 12], eax
    add dword ptr [tss0 + T_EIP], 2     # over the instruction
    iretd
    jmp fault_b

# CR3, LDT and debug registers of a task; T.
contents:
    TASK B, TSS_B, "offset contents_b", 0x39000
    DESC LDT_B, 0x45000, 0xf, LDT, 0
    DESCAT 0x45008, 0x46000, 0xff, RW_DATA, 0
    mov dword ptr [0x46000], 0x1d1d1d1d
    mov word ptr [B + T_LDT], LDT_B
    mov word ptr [B + T_FS], 0xc
    mov eax, 0x41               # nothing that would trap: L0 at a far address
    mov ecx, 0x700000
    mov dr0, ecx
    mov dr3, ecx
    mov eax, 0x81               # L0 and G3
    mov dr7, eax
    ljmp TSS_B, 0
    xor eax, eax
    mov dr7, eax
    IS "dword ptr [seen]", 0x1d1d1d1d, "data through the task's LDT"
    IS "dword ptr [seen + 4]", LDT_B, "LDTR of the task"
    IS "dword ptr [seen + 8]", 0x480, "local breakpoints are off, global ones stay"
    sldt eax
    IS eax, 0, "LDTR of the first task"
    # Two page directories.
    .set DIR_A, 0x100000
    .set DIR_B, 0x101000
    .set TAB, 0x102000
    .set TAB_A, 0x103000
    .set TAB_B, 0x104000
    mov edi, TAB
    mov eax, 7
    mov ecx, 1024
1:  stosd
    add eax, 0x1000
    loop 1b
    mov dword ptr [DIR_A], TAB + 7
    mov dword ptr [DIR_B], TAB + 7
    mov dword ptr [DIR_A + 4], TAB_A + 7
    mov dword ptr [DIR_B + 4], TAB_B + 7
    mov dword ptr [TAB_A], 0x200007
    mov dword ptr [TAB_B], 0x201007
    mov dword ptr [0x200000], 0xaaaa
    mov dword ptr [0x201000], 0xbbbb
    mov eax, DIR_A
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    mov dword ptr [tss0 + T_CR3], DIR_A
    TASK B, TSS_B, "offset paging_b", 0x39000
    mov dword ptr [B + T_CR3], DIR_B
    IS "dword ptr [0x400000]", 0xaaaa, "the first task's page"
    lcall TSS_B, 0
    IS "dword ptr [seen]", 0xbbbb, "the second task's page"
    IS "dword ptr [0x400000]", 0xaaaa, "the first task's page again"
    mov eax, cr3
    IS eax, DIR_A, "CR3 of the first task"
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    jmp 1f
1:  NOT_ON_TCG 1f               # it has no T
    TASK B, TSS_B, "offset traced_b", 0x39000
    mov word ptr [B + T_T], 1
    xor eax, eax
    mov dr6, eax
    TRY
    ljmp TSS_B, 0
traced_b:
    nop
    int DONE
    CATCH 1, 0, "T"
    IS "dword ptr [frame + F_EIP]", "offset traced_b", "T: before the task's first instruction"
    mov eax, dr6
    and eax, 0xe00f
    IS eax, 0x8000, "T: DR6.BT"
    call home_task
    # By an interrupt, too.
    TASK B, TSS_B, "offset traced_2", 0x39000
    mov word ptr [B + T_T], 1
    VECTOR 0x40, TSS_B, 0, TASK_GATE
    TRY
    int 0x40
traced_2:
    nop
    int DONE
    CATCH 1, 0, "T through a task gate"
    IS "dword ptr [frame + F_EIP]", "offset traced_2", "T through a task gate: EIP"
    call home_task
    xor eax, eax
    mov dr6, eax
1:  clts
    ret
contents_b:
    mov eax, fs:[0]
    mov [seen], eax
    xor eax, eax
    sldt ax
    mov [seen + 4], eax
    mov eax, dr7
    mov [seen + 8], eax
    ljmp TSS0, 0
paging_b:
    mov eax, [0x400000]
    mov [seen], eax
    iretd

# Makes the current task the first one again, after a test ended in another.
home_task:
    pushfd
    and dword ptr [esp], ~NT
    popfd
    DESC TSS0, "offset tss0", 0x67, TSS_32, 0
    mov ax, TSS0
    ltr ax
    xor eax, eax
    lldt ax
    mov fs, ax
    mov gs, ax
    clts
    ret

# A 16-bit TSS.
sixteen:
    mov edi, W
    xor eax, eax
    mov ecx, 11
    rep stosd
    mov word ptr [W + 14], offset task_w
    mov word ptr [W + 16], 0x403
    mov word ptr [W + 18], 0xa0a0       # AX
    mov word ptr [W + 20], 0xc0c0       # CX
    mov word ptr [W + 26], 0x9000       # SP
    mov word ptr [W + 34], DATA0        # ES CS SS DS
    mov word ptr [W + 36], CODE0
    mov word ptr [W + 38], DATA16
    mov word ptr [W + 40], DATA0
    DESC TSS_W, W, 43, TSS_16, 0
    mov eax, 0x12345678
    lcall TSS_W, 0
    IS eax, 0x12345678, "EAX is back"
    IS "dword ptr [seen]", 0xa0a0, "AX from a 16-bit TSS"
    IS "dword ptr [seen + 4]", 0xc0c0, "CX from a 16-bit TSS"
    IS "dword ptr [seen + 8]", "NT + 0x403", "FLAGS from a 16-bit TSS"
    IS "dword ptr [seen + 12]", 0, "FS from a 16-bit TSS is null"
    ISW "[W + 0]", TSS0, "back link in a 16-bit TSS"
    ISW "[W + 18]", 0x1d1d, "AX saved in a 16-bit TSS"
    ISW "[W + 14]", "offset w_left", "IP saved in a 16-bit TSS"
    TYPE_IS TSS_W, TSS_16, "a 16-bit task is not busy after IRET"
    clts
    DESC TSS_W, W, 42, TSS_16, 0
    FAULTS 10, TSS_W, "ljmp TSS_W, 0"
    ret
task_w:
    movzx eax, ax
    mov [seen], eax
    movzx ecx, cx
    mov [seen + 4], ecx
    pushfd
    pop [seen + 8]
    cld
    xor eax, eax
    mov ax, fs
    mov [seen + 12], eax
    mov eax, 0x1d1d
    iretd
w_left:
    ud2

# Switches that are refused: the old task goes on and sees the fault.
refusals:
    TASK B, TSS_B, "offset unexpected", 0x39000
    FAULTS 13, TSS0, "ljmp TSS0, 0"
    FAULTS 13, TSS0, "lcall TSS0, 0"
    DESC TSS_B, B, 0x66, TSS_32, 0
    FAULTS 10, TSS_B, "ljmp TSS_B, 0"
    FAULTS 10, TSS_B, "lcall TSS_B, 0"
    DESC TSS_B, B, 0x67, "TSS_32 & ~PRESENT", 0
    FAULTS 11, TSS_B, "ljmp TSS_B, 0"
    GATE GATE_B, TSS_B, 0, TASK_GATE
    FAULTS 11, TSS_B, "ljmp GATE_B, 0"
    DESC TSS_B, B, 0x67, TSS_32, 0
    FAULTS3 13, TSS_B, "ljmp TSS_B, 0"
    FAULTS3 13, GATE_B, "lcall GATE_B, 0"
    GATE GATE_B, TSS_B, 0, "TASK_GATE & ~PRESENT"
    FAULTS 11, GATE_B, "ljmp GATE_B, 0"
    NOT_ON_TCG 1f               # it has #TS
    GATE GATE_B, "TSS_B + 4", 0, TASK_GATE
    FAULTS 13, "TSS_B + 4", "ljmp GATE_B, 0"
1:
    GATE GATE_B, DATA0, 0, TASK_GATE
    FAULTS 13, DATA0, "ljmp GATE_B, 0"
    NOT_ON_TCG 1f               # INT goes to any task, IRET too
    VECTOR 0x40, TSS0, 0, TASK_GATE
    FAULTS 13, TSS0, "int 0x40"
    VECTOR 0x40, TSS_B, 0, "TASK_GATE & ~PRESENT"
    FAULTS 11, "0x40 * 8 + 2", "int 0x40"
    VECTOR 0x40, TSS_B, 0, "TASK_GATE"
    FAULTS3 13, "0x40 * 8 + 2", "int 0x40"
    # IRET with NT: what the back link must be.
    .macro LINK vector, error, link
    mov word ptr [tss0 + T_LINK], \link
    TRY
    push NT + 2
    popfd
91: iretd
    CATCH "\vector", "\error", "IRET to \link"
    IS "dword ptr [frame + F_EIP]", "offset 91b", "IRET to \link: EIP"
    .endm
    LINK 10, TSS_B, TSS_B       # not busy
    LINK 10, 0, 0
    LINK 10, DATA0, DATA0
    LINK 10, 0x200, 0x200
    DESC TSS_B, B, 0x67, "(TSS_32 + 2) & ~PRESENT", 0
    LINK 11, TSS_B, TSS_B
    LINK 10, 0xc, 0xc
1:
    mov word ptr [tss0 + T_LINK], 0
    TYPE_IS TSS0, "TSS_32 + 2", "the first task is still busy"
    ret

# Faults in the new task, before its first instruction: a task gate takes them.
late:
    DESC LDT_B, 0x45000, 0xf, "LDT & ~PRESENT", 0
    DESC ABSENT, 0, 0xfffff, "RW_DATA & ~PRESENT", "BIG | PAGES"
    .macro BAD vector, error, field, value
    TASK B, TSS_B, "offset unexpected", 0x39000
    TASK H, TSS_H, "offset handler", 0x3a800
    VECTOR "\vector", TSS_H, 0, TASK_GATE
    mov word ptr [B + \field], \value
    mov dword ptr [seen], -1
    ljmp TSS_B, 0
    VECTOR "\vector", CODE0, "offset vectors + \vector * VECTOR_SIZE", INT_GATE32
    IS "dword ptr [seen]", "\error", "\field is \value: error code"
    IS "dword ptr [seen + 4]", TSS_B, "\field is \value: back link"
    ISW "[B + T_CS]", CODE0, "\field is \value: CS of the new task"
    .endm
    BAD 10, DATA0, T_SS, "DATA0 + 3"
    BAD 10, 0, T_SS, 0
    BAD 10, 0x200, T_SS, 0x200
    BAD 10, CODE0, T_SS, CODE0
    BAD 12, ABSENT, T_SS, ABSENT
    BAD 10, 0x200, T_DS, 0x203
    BAD 10, TSS0, T_ES, TSS0
    BAD 11, ABSENT, T_GS, ABSENT
    BAD 10, DATA0, T_LDT, DATA0
    BAD 10, 0xc, T_LDT, 0xc
    BAD 10, LDT_B, T_LDT, LDT_B
    NOT_ON_TCG 1f               # it does not check limits
    # An EIP beyond the limit.
    DESC TSS_BAD, 0, 0xfff, RX_CODE, BIG
    TASK B, TSS_B, 0x2000, 0x39000
    mov word ptr [B + T_CS], TSS_BAD
    TASK H, TSS_H, "offset handler", 0x3a800
    VECTOR 13, TSS_H, 0, TASK_GATE
    ljmp TSS_B, 0
    VECTOR 13, CODE0, "offset vectors + 13 * VECTOR_SIZE", INT_GATE32
    IS "dword ptr [seen]", 0, "EIP beyond the limit: error code"
    IS "dword ptr [B + T_EIP]", 0x2000, "EIP beyond the limit: EIP"
1:  clts
    ret
unexpected:
    mov dword ptr [seen], -2
    ljmp TSS0, 0
handler:
    pop [seen]
    movzx eax, word ptr [H + T_LINK]
    mov [seen + 4], eax
    ljmp TSS0, 0                # JMP made it not busy

# Tasks of other levels, and from them.
levels:
    # A task in ring 3.
    TASK B, TSS_B, "offset user_b", STACK3
    mov dword ptr [B + T_CS], CODE3
    mov dword ptr [B + T_SS], DATA3
    mov dword ptr [B + T_DS], DATA3
    mov dword ptr [B + T_ES], DATA3
    mov dword ptr [B + 4], 0x3b000      # its ring 0 stack
    mov dword ptr [B + 8], DATA0
    TRY
    ljmp TSS_B, 0
user_b:
    mov ax, cs
    movzx eax, ax
    int DONE
    CATCH DONE, 0, "a task in ring 3"
    IS "dword ptr [frame + F_EAX]", CODE3, "CS of a task in ring 3"
    IS "dword ptr [frame + F_ESP]", STACK3, "ESP of a task in ring 3"
    call home_task
    # From ring 3 through a task gate, and back by IRET.
    TASK B, TSS_B, "offset gate_b", 0x39000
    VECTOR 0x40, TSS_B, 0, "TASK_GATE | DPL3"
    mov dword ptr [seen], 0
    TRY
    RING 3, 0x202
    mov esi, 0x51
    int 0x40
    int DONE
    CATCH DONE, 0, "a task gate from ring 3"
    IS "dword ptr [seen]", 1, "the task ran"
    IS "dword ptr [frame + F_CS]", CODE3, "back in ring 3"
    IS "dword ptr [frame + F_ESI]", 0x51, "ESI in ring 3"
    mov eax, [frame + F_EFLAGS]
    and eax, 0x4202
    IS eax, 0x202, "flags in ring 3"
    # A virtual-8086 task.
    TASK B, TSS_B, "offset v86_b", 0x8000
    mov dword ptr [B + T_CS], 0
    mov dword ptr [B + T_SS], 0x4000
    mov dword ptr [B + T_DS], 0x4600
    mov dword ptr [B + T_EFLAGS], VM + 0x3002
    mov dword ptr [B + 4], 0x3b000
    mov dword ptr [B + 8], DATA0
    mov dword ptr [0x46010], 0xbeef
    TRY
    ljmp TSS_B, 0
.code16
v86_b:
    mov ax, ds:[0x10]
    int DONE
.code32
    CATCH DONE, 0, "a virtual-8086 task"
    ISW "[frame + F_EAX]", 0xbeef, "DS of a virtual-8086 task"
    mov eax, [frame + F_EFLAGS]
    and eax, VM
    IS eax, VM, "VM of a virtual-8086 task"
    call home_task
    # Out of virtual-8086 mode through a task gate, and back.
    TASK B, TSS_B, "offset gate_b", 0x39000
    mov dword ptr [seen], 0
    TRY
    push 0
    push 0
    push 0x4600
    push 0
    push 0x4000
    push 0x8000
    push VM + 0x3002
    push 0
    push offset 1f
    iretd
.code16
1:  int 0x40
    mov ax, ds:[0x10]
    int DONE
.code32
    CATCH DONE, 0, "a task gate from virtual-8086 mode"
    IS "dword ptr [seen]", 1, "the task ran"
    ISW "[frame + F_EAX]", 0xbeef, "DS in virtual-8086 mode after the task"
    ret

.bss
.balign 4
seen: .skip 64
saved_esp: .skip 4
