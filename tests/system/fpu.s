# x87, MMX and SSE from the system's side: #NM, #MF, FERR, #UD, #XM, alignment.
.include "guest.inc"

.set MP, 2
.set EM, 4
.set TS, 8
.set CR0_NE, 0x20
.set OSFXSR, 0x200
.set OSXMMEXCPT, 0x400
.set IRQ13, 0x5d

.macro CR0_IS bits
    mov eax, cr0
    and eax, ~(MP | EM | TS | CR0_NE)
    or eax, \bits
    mov cr0, eax
.endm
.macro CR4_IS bits
    mov eax, \bits
    mov cr4, eax
.endm

main:
    call availability
    call sse_availability
    call errors
    call ferr
    call simd_errors
    call alignment
    CR0_IS 0
    ret

availability:
    fninit
    CR0_IS 0
    WORKS "fld1"
    WORKS "fwait"
    CR0_IS TS
    FAULTS 7, 0, "fld1"
    FAULTS 7, 0, "fninit"
    FAULTS 7, 0, "fnstsw ax"
    FAULTS 7, 0, "emms"
    WORKS "fwait"
    CR0_IS MP
    WORKS "fwait"
    CR0_IS "TS | MP"
    FAULTS 7, 0, "fwait"
    FAULTS 7, 0, "fxsave [area]"
    CR0_IS EM
    FAULTS 7, 0, "fld1"
    FAULTS 7, 0, "fnclex"
    WORKS "fwait"
    FAULTS 6, 0, "emms"
    FAULTS 6, 0, "movq mm0, mm1"
    CR0_IS "EM | TS"
    FAULTS 6, 0, "emms"
    FAULTS 7, 0, "fld1"
    # CLTS.
    CR0_IS TS
    clts
    WORKS "fld1"
    CR0_IS 0
    fninit
    ret

sse_availability:
    CR4_IS 0
    FAULTS 6, 0, "xorps xmm0, xmm0"
    FAULTS 6, 0, "movd xmm0, eax"
    FAULTS 6, 0, "ldmxcsr [area]"
    WORKS "movq mm0, mm1"
    WORKS "sfence"
    WORKS "prefetcht0 [area]"
    CR4_IS OSFXSR
    WORKS "xorps xmm0, xmm0"
    CR0_IS TS
    FAULTS 7, 0, "xorps xmm0, xmm0"
    FAULTS 7, 0, "stmxcsr [area]"
    CR0_IS EM
    FAULTS 6, 0, "xorps xmm0, xmm0"
    FAULTS 6, 0, "fxsave [area]"
    CR0_IS "EM | TS"
    FAULTS 6, 0, "xorps xmm0, xmm0"
    CR0_IS 0
    emms
    ret

# Unmasked x87 exceptions with CR0.NE: at the next waiting instruction.
errors:
    CR0_IS CR0_NE
    fninit
    mov word ptr [area], 0x37b  # ZM clear
    fldcw [area]
    fld1
    fldz
    TRY
    fdivp
    nop
1:  fld1
    CATCH 16, 0, "a division by zero"
    IS "dword ptr [frame + F_EIP]", "offset 1b", "#MF is at the next instruction"
    WORKS "fnstsw ax"
    fnstsw ax
    movzx eax, ax
    and eax, 0x80ff
    IS eax, 0x8084, "status word: B, ES, ZE"
    FAULTS 16, 0, "fwait"
    FAULTS 16, 0, "fld1"
    FAULTS 16, 0, "movq mm0, mm1"
    FAULTS 16, 0, "emms"
    WORKS "fnstenv [area]"
    fninit
    WORKS "fwait"
    # FNCLEX ends it.
    mov word ptr [area], 0x37b
    fldcw [area]
    fldz
    fld1
    fdiv st(0), st(1)
    fnclex
    WORKS "fld1"
    fninit
    # Unmasking what is pending.
    fldz
    fld1
    fdiv st(0), st(1)
    mov word ptr [area], 0x37b
    WORKS "fldcw [area]"
    FAULTS 16, 0, "fld1"
    fninit
    # The pointers are of the instruction that failed.
    mov word ptr [area], 0x37b
    fldcw [area]
    mov dword ptr [area + 64], 0
    fld1
1:  fdiv dword ptr [area + 64]
    fnstenv [area]
    IS "dword ptr [area + 12]", "offset 1b", "FPU instruction pointer"
    IS "dword ptr [area + 20]", "offset area + 64", "FPU data pointer"
    fninit
    # From ring 3.
    TRY
    RING 3
    fldcw [masks]
    fldz
    fld1
    fdiv st(0), st(1)
1:  fwait
    int DONE
    CATCH 16, 0, "#MF in ring 3"
    IS "dword ptr [frame + F_EIP]", "offset 1b", "#MF in ring 3: EIP"
    fninit
    CR0_IS 0
    ret

# With NE clear the board hears of it: IRQ 13.
ferr:
    PICS 0xfb, 0xdf             # all but IRQ 2 and 13
    CR0_IS 0
    fninit
    fldcw [masks]
    fldz
    fld1
    TRY
    sti
    nop
    fdiv st(0), st(1)
    nop
    fwait
    jmp 1f
1:  nop
    nop
    nop
    cli
    CATCH IRQ13, 0, "FERR"
    xor eax, eax
    out 0xf0, al
    fnclex
    mov al, 0x20
    out 0xa0, al
    out 0x20, al
    TRY
    sti
    nop
    fwait
    nop
    nop
    cli
    CATCH NOTHING, 0, "FERR is down"
    mov al, 0xff
    out 0x21, al
    out 0xa1, al
    fninit
    ret

simd_errors:
    CR4_IS "OSFXSR | OSXMMEXCPT"
    mov dword ptr [area], 0x1f80
    ldmxcsr [area]
    mov dword ptr [area + 16], 0x3f800000
    movss xmm0, [area + 16]
    xorps xmm1, xmm1
    WORKS "divss xmm0, xmm1"
    stmxcsr [area]
    IS "dword ptr [area]", 0x1f84, "MXCSR after a masked division by zero"
    mov dword ptr [area], 0x1d80        # ZM clear
    ldmxcsr [area]
    movss xmm0, [area + 16]
    FAULTS 19, 0, "divss xmm0, xmm1"
    movd eax, xmm0
    IS eax, 0x3f800000, "the destination is as it was"
    stmxcsr [area]
    IS "dword ptr [area]", 0x1d84, "MXCSR after #XM"
    mov dword ptr [area], 0x1d80
    ldmxcsr [area]
    CR4_IS OSFXSR
    FAULTS 6, 0, "divss xmm0, xmm1"
    CR4_IS "OSFXSR | OSXMMEXCPT"
    # Invalid operands of a comparison.
    mov dword ptr [area], 0x1f00        # IM clear
    ldmxcsr [area]
    mov dword ptr [area + 16], 0x7f800001
    movss xmm0, [area + 16]
    FAULTS 19, 0, "ucomiss xmm0, xmm0"
    mov dword ptr [area + 16], 0x7fc00000
    movss xmm0, [area + 16]
    WORKS "ucomiss xmm0, xmm0"
    FAULTS 19, 0, "comiss xmm0, xmm0"
    mov dword ptr [area], 0x10000
    FAULTS 13, 0, "ldmxcsr [area]"
    mov dword ptr [area], 0x1f80
    ldmxcsr [area]
    ret

alignment:
    FAULTS 13, 0, "movaps xmm0, [area + 8]"
    FAULTS 13, 0, "movaps [area + 1], xmm0"
    FAULTS 13, 0, "addps xmm0, [area + 4]"
    WORKS "movups xmm0, [area + 4]"
    WORKS "movaps xmm0, [area]"
    NOT_ON_TCG 1f
    FAULTS 13, 0, "fxsave [area + 8]"
    FAULTS 13, 0, "fxrstor [area + 8]"
1:  fxsave [area]
    mov dword ptr [area + 24], 0xffff0000
    FAULTS 13, 0, "fxrstor [area]"
    mov dword ptr [area + 24], 0x1f80
    WORKS "fxrstor [area]"
    CR4_IS 0
    ret

.data
masks: .word 0x37b
.bss
.balign 16
area: .skip 528
