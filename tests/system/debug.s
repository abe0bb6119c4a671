# Debug registers, single steps, RF: which traps come when, what DR6 and the saved flags say.
.include "guest.inc"

.set EXEC, 0
.set WRITE, 1
.set IO, 2
.set ACCESS, 3
.set BS, 0x4000
.set BD, 0x2000
.set GD, 0x2000
.set CR4_DE, 8

.macro CLEAR
    xor eax, eax
    mov dr7, eax
    mov dr6, eax
.endm
# Breakpoint 0 (globally): address, kind, length field.
.macro BREAK address, kind, length=0
    mov eax, \address
    mov dr0, eax
    mov eax, 2 | (\kind << 16) | (\length << 18)
    mov dr7, eax
.endm
# Checks a #DB: EIP, the bits of DR6, TF and RF in the saved flags.
.macro DEBUGGED eip, bits, flags, text
    CATCH 1, 0, "\text"
    mov eax, dr6
    IS "dword ptr [frame + F_EIP]", "\eip", "\text: EIP"
    and eax, 0xe00f
    IS eax, "\bits", "\text: DR6"
    mov eax, [frame + F_EFLAGS]
    and eax, TF | RF
    IS eax, "\flags", "\text: TF and RF saved"
    CLEAR
.endm

main:
    CLEAR
    call steps
    call execution
    call data
    call ports
    call others
    call shadows
    ret

steps:
    # POPF sets TF: the trap comes after the instruction behind it.
    TRY
    push TF + 2
    popfd
    nop
1:  nop
    DEBUGGED "offset 1b", BS, TF, "after POPF"
    # A step over a POPF that clears TF still traps.
    TRY
    push 2
    push TF + 2
    popfd
    popfd
1:  nop
    DEBUGGED "offset 1b", BS, 0, "over POPF that clears TF"
    # IRET that sets TF.
    TRY
    push TF + 2
    push CODE0
    push offset 1f
    iretd
1:  nop
2:  nop
    DEBUGGED "offset 2b", BS, TF, "after IRET"
    # A fault comes instead of the step.
    TRY
    push TF + 2
    popfd
1:  ud2
    CATCH 6, 0, "a step over a fault"
    mov eax, dr6
    and eax, 0xe00f
    IS eax, 0, "a fault: DR6"
    NOT_ON_TCG 1f               # it sets RF for fewer
    mov eax, [frame + F_EFLAGS]
    and eax, TF | RF
    IS eax, TF | RF, "a fault: TF and RF saved"
1:
    # INT n: its handler runs with TF clear, and nothing traps.
    TRY
    push TF + 2
    popfd
    int 0x40
1:  nop
    CATCH 0x40, 0, "a step over INT"
    IS "dword ptr [frame + F_EIP]", "offset 1b", "a step over INT: EIP"
    mov eax, [frame + F_EFLAGS]
    and eax, TF | RF
    IS eax, TF, "a step over INT: TF and RF saved"
    mov eax, dr6
    and eax, 0xe00f
    IS eax, 0, "a step over INT: DR6"
    # A taken jump, a call.
    TRY
    push TF + 2
    popfd
    jmp 1f
    nop
1:  nop
    DEBUGGED "offset 1b", BS, TF, "over JMP"
    # Each element of a repeated instruction.
    TRY
    mov esi, 0x40000
    mov edi, 0x40100
    mov ecx, 5
    push TF + 2
    popfd
1:  rep movsb
    nop
    CATCH 1, 0, "over REP MOVSB"
    IS "dword ptr [frame + F_EIP]", "offset 1b", "over REP MOVSB: EIP"
    IS "dword ptr [frame + F_ECX]", 4, "over REP MOVSB: ECX"
    CLEAR
    TRY
    mov esi, 0x40000
    mov edi, 0x40100
    mov ecx, 1
    push TF + 2
    popfd
    rep movsb
1:  nop
    DEBUGGED "offset 1b", BS, TF, "over the last of REP MOVSB"
    TRY
    mov ecx, 0
    push TF + 2
    popfd
    rep stosb
1:  nop
    DEBUGGED "offset 1b", BS, TF, "over REP STOSB of nothing"
    # Many steps: a hook counts them.
    mov dword ptr [hook], offset count_step
    mov dword ptr [steps_seen], 0
    pushfd
    or dword ptr [esp], TF
    popfd
    mov ecx, 10                 # 1
1:  dec ecx                     # 10
    jnz 1b                      # 10
    nop                         # 1
    pushfd                      # 1
    and dword ptr [esp], ~TF    # 1
    popfd                       # 1
    mov dword ptr [hook], 0
    IS "dword ptr [steps_seen]", 25, "steps counted"
    CLEAR
    # From ring 3.
    TRY
    RING 3, TF + 2
    nop
1:  nop
    DEBUGGED "offset 1b", BS, TF, "in ring 3"
    ISW "[frame + F_CS]", CODE3, "in ring 3: CS"
    # In virtual-8086 mode.
    TRY
    push 0
    push 0
    push 0
    push 0
    push 0x4000
    push 0x8000
    push VM + TF + 2
    push 0
    push offset 1f
    iretd
.code16
1:  nop
2:  nop
.code32
    DEBUGGED "offset 2b", BS, TF, "in virtual-8086 mode"
    ret
count_step:
    inc dword ptr [steps_seen]
    ret

execution:
    # A breakpoint is met before the instruction; RF in the saved flags is clear, and lets it pass if set.
    BREAK "offset 1f", EXEC
    TRY
    nop
1:  nop
    DEBUGGED "offset 1b", 1, 0, "an instruction breakpoint"
    mov dword ptr [hook], offset count_and_resume
    mov dword ptr [steps_seen], 0
    BREAK "offset 1f", EXEC
    mov ecx, 10
1:  nop
    loop 1b
    mov dword ptr [hook], 0
    IS "dword ptr [steps_seen]", 10, "a breakpoint in a loop, passed with RF"
    CLEAR
    # RF lasts for one instruction.
    BREAK "offset 2f", EXEC
    TRY
    push RF + 2
    push CODE0
    push offset 1f
    iretd
1:  nop
2:  nop
    DEBUGGED "offset 2b", 1, 0, "RF is over after one instruction"
    BREAK "offset 1f", EXEC
    TRY
    push RF + 2
    push CODE0
    push offset 1f
    iretd
1:  nop
    nop
    CATCH NOTHING, 0, "RF passes a breakpoint"
    CLEAR
    # POPF does not set RF.
    BREAK "offset 1f", EXEC
    TRY
    push RF + 2
    popfd
1:  nop
    DEBUGGED "offset 1b", 1, 0, "POPF sets no RF"
    # A fault's RF: the breakpoint at the faulting instruction is not met again on return.
    mov dword ptr [hook], offset repair
    mov dword ptr [steps_seen], 0
    mov dword ptr [steps_seen + 4], 0
    BREAK "offset 1f", EXEC
    mov ecx, 0x1f8
1:  mov fs, cx
    mov dword ptr [hook], 0
    IS "dword ptr [steps_seen]", 1, "the breakpoint is met once"
    IS "dword ptr [steps_seen + 4]", 1, "the fault is met once"
    CLEAR
    # Before a fault of the fetch or the decoder.
    BREAK "offset 1f", EXEC
    TRY
1:  ud2
    DEBUGGED "offset 1b", 1, 0, "a breakpoint on UD2"
    # Two at once; a disabled one says nothing but may show in DR6.
    mov eax, offset 1f
    mov dr0, eax
    mov dr1, eax
    mov dr2, eax
    mov eax, 0x2a               # G0 G1 G2
    mov dr7, eax
    TRY
1:  nop
    DEBUGGED "offset 1b", 7, 0, "three breakpoints"
    # Local enables work as well.
    mov eax, offset 1f
    mov dr3, eax
    mov eax, 0x40               # L3
    mov dr7, eax
    TRY
1:  nop
    DEBUGGED "offset 1b", 8, 0, "a local breakpoint"
    # A step and a breakpoint on the next instruction: two traps.
    BREAK "offset 1f", EXEC
    TRY
    push TF + 2
    popfd
    nop
1:  nop
    CATCH 1, 0, "a step onto a breakpoint"
    IS "dword ptr [frame + F_EIP]", "offset 1b", "a step onto a breakpoint: EIP"
    mov eax, dr6
    and eax, BS
    IS eax, BS, "a step onto a breakpoint: BS"
    CLEAR
    # Not on the second byte of an instruction.
    BREAK "offset 1f + 1", EXEC
    TRY
1:  mov eax, 1
    CATCH NOTHING, 0, "a breakpoint inside an instruction"
    CLEAR
    # On a repeated instruction: once, not for each element.
    mov dword ptr [hook], offset count_and_resume
    mov dword ptr [steps_seen], 0
    BREAK "offset 1f", EXEC
    mov edi, 0x40000
    mov ecx, 100
1:  rep stosb
    mov dword ptr [hook], 0
    NOT_ON_TCG 1f               # it meets it again and again
    IS "dword ptr [steps_seen]", 1, "a breakpoint on REP STOSB"
1:
    CLEAR
    ret
count_and_resume:
    inc dword ptr [steps_seen]
    or dword ptr [ebx + F_EFLAGS], RF
    ret
repair:
    cmp dword ptr [ebx + F_VECTOR], 1
    jne 1f
    jmp count_and_resume
1:  inc dword ptr [steps_seen + 4]
    mov dword ptr [ebx + F_ECX], 0
    ret

data:
    .macro TRAPS address, kind, length, insn
    BREAK "\address", \kind, \length
    mov ebx, 0x40000
    mov esi, ebx
    mov edi, ebx
    TRY
    \insn
97: nop
    DEBUGGED "offset 97b", 1, 0, "\insn at \address, kind \kind, length \length"
    .endm
    .macro PASSES address, kind, length, insn
    BREAK "\address", \kind, \length
    mov ebx, 0x40000
    mov esi, ebx
    mov edi, ebx
    TRY
    \insn
    nop
    CATCH NOTHING, 0, "\insn at \address, kind \kind, length \length"
    CLEAR
    .endm
    TRAPS 0x40000, WRITE, 3, "mov [ebx], eax"
    TRAPS 0x40000, WRITE, 3, "mov [ebx + 3], al"
    TRAPS 0x40000, WRITE, 3, "mov [ebx - 3], eax"
    PASSES 0x40000, WRITE, 3, "mov [ebx + 4], al"
    PASSES 0x40000, WRITE, 3, "mov [ebx - 4], eax"
    PASSES 0x40000, WRITE, 3, "mov eax, [ebx]"
    TRAPS 0x40000, ACCESS, 3, "mov eax, [ebx]"
    TRAPS 0x40000, ACCESS, 0, "mov [ebx], al"
    PASSES 0x40001, ACCESS, 0, "mov [ebx], al"
    TRAPS 0x40001, ACCESS, 0, "mov [ebx], ax"
    TRAPS 0x40002, WRITE, 1, "mov [ebx + 3], al"
    NOT_ON_TCG 1f               # it does not align the address
    TRAPS 0x40003, WRITE, 1, "mov [ebx + 2], al"
1:
    TRAPS 0x40000, WRITE, 3, "inc dword ptr [ebx]"
    PASSES 0x40000, WRITE, 3, "cmp dword ptr [ebx], 0"
    TRAPS 0x40000, ACCESS, 3, "cmp dword ptr [ebx], 0"
    TRAPS 0x40000, WRITE, 3, "stosd"
    TRAPS 0x40000, ACCESS, 3, "lodsd"
    PASSES 0x40000, ACCESS, 3, "lea eax, [ebx]"
    PASSES 0x40000, ACCESS, 3, "mov eax, [ebx + 0x100]"
    # In REP MOVS: after the element that met it.
    BREAK 0x40108, WRITE, 3
    TRY
    mov esi, 0x40000
    mov edi, 0x40100
    mov ecx, 16
1:  rep movsd
    CATCH 1, 0, "a breakpoint in REP MOVSD"
    IS "dword ptr [frame + F_EIP]", "offset 1b", "a breakpoint in REP MOVSD: EIP"
    IS "dword ptr [frame + F_EDI]", 0x4010c, "a breakpoint in REP MOVSD: EDI"
    IS "dword ptr [frame + F_ECX]", 13, "a breakpoint in REP MOVSD: ECX"
    CLEAR
    ret

ports:
    mov eax, cr4
    or eax, CR4_DE
    mov cr4, eax
    .macro PORT port, length, insn, text
    BREAK \port, IO, \length
    TRY
    mov dx, \port
    \insn
97: nop
    DEBUGGED "offset 97b", 1, 0, "\insn of port \port"
    .endm
    PORT 0x84, 0, "out 0x84, al"
    PORT 0x84, 0, "in al, dx"
    PORT 0x84, 0, "in ax, 0x83"
    BREAK 0x84, IO, 0
    TRY
    out 0x85, al
    nop
    mov [0x84], al              # memory is no port
    CATCH NOTHING, 0, "another port"
    CLEAR
    # With DE there are no DR4 and DR5; without, they are DR6 and DR7.
    FAULTS 6, 0, "mov eax, dr4"
    FAULTS 6, 0, "mov dr5, eax"
    mov eax, cr4
    and eax, ~CR4_DE
    mov cr4, eax
    xor eax, eax
    mov eax, dr4
    mov ecx, dr6
    IS eax, ecx, "DR4 is DR6"
    mov eax, dr5
    IS eax, 0x400, "DR5 is DR7"
    ret

others:
    NOT_ON_TCG 1f               # it keeps all bits, and knows neither GD nor INT1
    # What reads as one and zero.
    mov eax, -1
    and eax, ~0x3ff             # nothing enabled
    and eax, ~GD
    mov dr7, eax
    mov ecx, dr7
    and ecx, ~0x800             # RTM
    IS ecx, 0xffff0400, "DR7's fixed bits"
    CLEAR
    mov eax, -1
    mov dr6, eax
    mov ecx, dr6
    IS ecx, 0xffffefff, "DR6's fixed bits"
    CLEAR
    mov ecx, dr6
    IS ecx, 0xffff0ff0, "DR6 clear"
    # General detect: a fault, and GD is clear in the handler.
    mov eax, GD
    mov dr7, eax
    TRY
1:  mov ecx, dr0
    CATCH 1, 0, "general detect"
    IS "dword ptr [frame + F_EIP]", "offset 1b", "general detect: EIP"
    mov eax, dr6                # which GD would forbid
    and eax, 0xe00f
    IS eax, BD, "general detect: DR6"
    mov eax, dr7
    and eax, GD
    IS eax, 0, "general detect: GD is clear"
    CLEAR
    # INT1: no DR6, a trap. Vector 1 by INT n.
    TRY
    .byte 0xf1
1:  nop
    CATCH 1, 0, "INT1"
    IS "dword ptr [frame + F_EIP]", "offset 1b", "INT1: EIP"
    mov eax, dr6
    and eax, 0xe00f
    IS eax, 0, "INT1: DR6"
    FAULTS3 13, "8 + 2", "int 1"
    TRY
    RING 3
    .byte 0xf1                  # is not held off by the gate's DPL
1:  nop
    CATCH 1, 0, "INT1 in ring 3"
    IS "dword ptr [frame + F_EIP]", "offset 1b", "INT1 in ring 3: EIP"
    CLEAR
1:  ret

# MOV SS and POP SS hold off traps until after the next instruction.
shadows:
    mov dx, DATA0
    TRY
    push TF + 2
    popfd
    mov ss, dx
    nop
1:  nop
    DEBUGGED "offset 1b", BS, TF, "a step over MOV SS"
    TRY
    push DATA0
    push TF + 2
    popfd
    pop ss
    nop
1:  nop
    DEBUGGED "offset 1b", BS, TF, "a step over POP SS"
    NOT_ON_TCG 2f               # it knows no more than that
    BREAK "offset 1f", EXEC
    TRY
    mov ss, dx
1:  nop
    nop
    CATCH NOTHING, 0, "a breakpoint after MOV SS"
    CLEAR
    # A data breakpoint met by MOV SS itself.
    mov word ptr [0x40000], DATA0
    BREAK 0x40000, ACCESS, 1
    TRY
    mov ss, word ptr [0x40000]
    nop
1:  nop
    DEBUGGED "offset 1b", 1, 0, "a data breakpoint met by MOV SS"
    # ... followed by INT: the trap comes in its handler.
    VECTOR 0x40, CODE0, "offset 1f", INT_GATE32
    mov word ptr [0x40000], DATA0
    BREAK 0x40000, ACCESS, 1
    TRY
    mov ss, word ptr [0x40000]
    int 0x40
    nop
1:  nop
    DEBUGGED "offset 1b", 1, 0, "a data breakpoint met by MOV SS, then INT"
2:  ret

.bss
.balign 4
steps_seen: .skip 8
