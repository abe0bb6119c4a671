# External interrupts: when they are taken, the shadows of STI, MOV SS and POP SS, HLT, repeated
# instructions. The serial port's empty transmitter is what raises them.
.include "guest.inc"

.set IER, 0x3f9
.set IIR, 0x3fa
.set MCR, 0x3fc
.set IRQ4, 0x54

# Raises the line; a PC's serial port does so at once.
.macro RAISE
    mov dx, IER
    mov al, 2
    out dx, al
.endm
.macro TAKEN eip, text
    CATCH IRQ4, 0, "\text"
    IS "dword ptr [frame + F_EIP]", "\eip", "\text: EIP"
    call lower
.endm

main:
    PICS 0xef, 0xff             # all but IRQ 4
    mov dx, MCR
    mov al, 8                   # OUT2 lets interrupts out
    out dx, al
    call lower
    call simple
    call shadows
    call halts
    call repeats
    call modes
    ret

# Ends the interrupt: takes the line down and tells the controller.
lower:
    mov dx, IER
    xor eax, eax
    out dx, al
    mov dx, IIR
    in al, dx
    mov al, 0x20
    out 0x20, al
    ret

simple:
    NOT_ON_TCG 1f               # it looks for interrupts some instructions later
    # With IF set: after the OUT.
    TRY
    mov dx, IER
    mov al, 2
    sti
    nop
    out dx, al
1:  nop
    nop
    cli
    TAKEN "offset 1b", "after OUT"
    mov eax, [frame + F_EFLAGS]
    and eax, IF | RF
    IS eax, IF, "flags saved"
1:  # With IF clear: not.
    TRY
    RAISE
    nop
    CATCH NOTHING, 0, "IF clear"
    # POPF and IRET take it at once.
    TRY
    push IF + 2
    popfd
1:  nop
    nop
    cli
    TAKEN "offset 1b", "after POPF"
    TRY
    RAISE
    push IF + 2
    push CODE0
    push offset 1f
    iretd
1:  nop
    cli
    TAKEN "offset 1b", "after IRET"
    NOT_ON_TCG 1f
    # A masked line waits.
    mov al, 0xff
    out 0x21, al
    RAISE
    TRY
    sti
    nop
    nop
    mov al, 0xef
    out 0x21, al
1:  nop
    nop
    cli
    TAKEN "offset 1b", "after it was unmasked"
1:  ret

shadows:
    RAISE
    TRY
    sti
    inc ecx
1:  inc ecx
    nop
    cli
    TAKEN "offset 1b", "after STI and one more"
    RAISE
    TRY
    sti
    cli
    nop
    nop
    CATCH NOTHING, 0, "STI, CLI"
    call lower
    # STI with IF set already casts no shadow; a second STI does not lengthen the first's.
    RAISE
    TRY
    sti
    sti
1:  nop
    cli
    TAKEN "offset 1b", "STI, STI"
    # MOV SS and POP SS.
    RAISE
    mov cx, DATA0
    TRY
    push DATA0
    sti
    pop ss                      # in the shadow of STI, casts its own
    nop
1:  nop
    cli
    CATCH IRQ4, 0, "STI, POP SS"
    call lower
    # A fault in the shadow; the interrupt after the handler's return.
    RAISE
    TRY
    sti
91: ud2
    CATCH 6, 0, "a fault in the shadow of STI"
    IS "dword ptr [frame + F_EIP]", "offset 91b", "a fault in the shadow: EIP"
    call lower
    ret

halts:
    RAISE
    TRY
    sti
    hlt
1:  nop
    nop
    cli
    TAKEN "offset 1b", "STI, HLT"
    RAISE
    TRY
    push IF + 2
    popfd
1:  hlt
    nop
    cli
    TAKEN "offset 1b", "HLT with an interrupt waiting"
    ret

# REP OUTSB raises the line in the middle.
repeats:
    NOT_ON_TCG 1f
    mov dword ptr [bytes], 0x02000000
    mov dword ptr [bytes + 4], 0x02020202
    TRY
    mov esi, offset bytes
    mov ecx, 8
    mov dx, IER
    sti
    nop
1:  rep outsb
    cli
    CATCH IRQ4, 0, "in REP OUTSB"
    IS "dword ptr [frame + F_EIP]", "offset 1b", "in REP OUTSB: EIP"
    IS "dword ptr [frame + F_ECX]", 4, "in REP OUTSB: ECX"
    IS "dword ptr [frame + F_ESI]", "offset bytes + 4", "in REP OUTSB: ESI"
    mov eax, [frame + F_EFLAGS]
    and eax, RF
    IS eax, RF, "in REP OUTSB: RF saved"
    call lower
    # Resumed, it does the rest.
    mov dword ptr [hook], offset count
    mov dword ptr [counted], 0
    mov dword ptr [bytes], 0x00020002
    mov dword ptr [bytes + 4], 0x00020002
    mov esi, offset bytes
    mov ecx, 8
    mov dx, IER
    sti
    nop
    rep outsb
    nop
    cli
    mov dword ptr [hook], 0
    IS ecx, 0, "REP OUTSB resumed: ECX"
    IS esi, "offset bytes + 8", "REP OUTSB resumed: ESI"
    IS "dword ptr [counted]", 4, "REP OUTSB resumed: interrupts"
1:  ret
count:
    inc dword ptr [counted]
    mov dx, IIR
    in al, dx
    mov al, 0x20
    out 0x20, al
    ret

modes:
    # From ring 3, and from virtual-8086 mode whatever IOPL is.
    RAISE
    TRY
    RING 3, IF + 2
1:  nop
    int DONE
    CATCH IRQ4, 0, "in ring 3"
    IS "dword ptr [frame + F_CS]", CODE3, "in ring 3: CS"
    call lower
    RAISE
    TRY
    push 0
    push 0
    push 0x4600
    push 0x4500
    push 0x4000
    push 0x8000
    push VM + IF + 2
    push 0
    push offset 1f
    iretd
.code16
1:  nop
    hlt
.code32
    CATCH IRQ4, 0, "in virtual-8086 mode"
    IS "dword ptr [frame + F_EIP]", "offset 1b", "in virtual-8086 mode: EIP"
    IS "dword ptr [frame + F_VDS]", 0x4600, "in virtual-8086 mode: DS"
    mov eax, [frame + F_EFLAGS]
    and eax, VM
    IS eax, VM, "in virtual-8086 mode: VM"
    call lower
    ret

.bss
.balign 4
bytes: .skip 8
counted: .skip 4
