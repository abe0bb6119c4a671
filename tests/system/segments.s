# Segments: limits, types, null selectors, expand-down data, loads of segment registers, and the
# instructions that look at descriptors.
.include "guest.inc"

.set BYTE_DATA, FREE            # 1000h bytes at `room`, writable
.set READ_ONLY, FREE + 8
.set DOWN16, FREE + 16          # expand-down, 16-bit, valid above 0FFFh
.set DOWN32, FREE + 24          # expand-down, 32-bit
.set EXEC_ONLY, FREE + 32
.set READABLE, FREE + 40
.set ABSENT, FREE + 48
.set PRIVATE, FREE + 56         # DPL 0 data
.set CONFORMS, FREE + 64        # conforming, DPL 0
.set SHORT_CODE, FREE + 72
.set SYSTEM, FREE + 80          # an LDT descriptor
.set PAGED, FREE + 88           # limit in pages
.set DATA_DPL2, FREE + 96
.set BEYOND, 0x200              # outside the GDT

main:
    DESC BYTE_DATA, 0x40000, 0xfff, "RW_DATA | DPL3", 0
    DESC READ_ONLY, 0x40000, 0xfff, "RO_DATA | DPL3", 0
    DESC DOWN16, 0x40000, 0xfff, DOWN_DATA, 0
    DESC DOWN32, 0x40000, 0xfff, DOWN_DATA, BIG
    DESC EXEC_ONLY, 0, 0xfffff, X_CODE, "BIG | PAGES"
    DESC READABLE, 0, 0xfffff, RX_CODE, "BIG | PAGES"
    DESC ABSENT, 0, 0xfffff, "RW_DATA & ~PRESENT", "BIG | PAGES"
    DESC PRIVATE, 0, 0xfffff, RW_DATA, "BIG | PAGES"
    DESC CONFORMS, 0, 0xfffff, CONFORMING, "BIG | PAGES"
    DESC SHORT_CODE, 0, 0xfff, RX_CODE, BIG
    DESC SYSTEM, 0x40000, 0xff, LDT, 0
    DESC PAGED, 0x40000, 1, "RW_DATA | DPL3", PAGES
    DESC DATA_DPL2, 0, 0xfffff, "RW_DATA | DPL2", "BIG | PAGES"

    call loads
    NOT_ON_TCG 1f               # it checks neither limits nor types of data accesses
    call limits
    call types
1:
    call inspection
    call code_limits
    call ldt_tests
    ret

loads:
    mov ecx, BYTE_DATA
    WORKS "mov fs, cx"
    mov ecx, 0
    WORKS "mov fs, cx"
    mov ecx, 3
    WORKS "mov fs, cx"
    mov ecx, 3
    FAULTS 13, 0, "mov ss, cx"
    mov ecx, 0
    FAULTS 13, 0, "mov ss, cx"
    mov ecx, ABSENT
    FAULTS 11, ABSENT, "mov es, cx"
    mov ecx, ABSENT
    FAULTS 12, ABSENT, "mov ss, cx"
    mov ecx, EXEC_ONLY
    FAULTS 13, EXEC_ONLY, "mov es, cx"
    mov ecx, READABLE
    WORKS "mov es, cx"
    mov ecx, READABLE
    FAULTS 13, READABLE, "mov ss, cx"
    mov ecx, READ_ONLY
    FAULTS 13, READ_ONLY, "mov ss, cx"
    mov ecx, SYSTEM
    FAULTS 13, SYSTEM, "mov es, cx"
    mov ecx, BEYOND
    FAULTS 13, BEYOND, "mov es, cx"
    mov ecx, BEYOND + 3
    FAULTS 13, BEYOND, "mov es, cx"
    mov ecx, PRIVATE + 1        # RPL above DPL
    FAULTS 13, PRIVATE, "mov es, cx"
    mov ecx, PRIVATE + 1
    FAULTS 13, PRIVATE, "mov ss, cx"
    mov ecx, DATA_DPL2
    FAULTS 13, DATA_DPL2, "mov ss, cx"
    mov ecx, DATA_DPL2 + 2
    WORKS "mov gs, cx"
    mov ecx, DATA_DPL2 + 3
    FAULTS 13, DATA_DPL2, "mov gs, cx"
    mov ecx, CONFORMS + 3
    WORKS "mov gs, cx"
    FAULTS3 13, PRIVATE, "mov ecx, PRIVATE; 91: mov gs, cx"
    WORKS3 "mov ecx, CONFORMS; mov gs, cx"
    FAULTS3 13, DATA_DPL2, "mov ecx, DATA_DPL2 + 2; 91: mov gs, cx"
    # Loading marks the descriptor accessed.
    DESC PRIVATE, 0, 0xfffff, "RW_DATA & ~1", "BIG | PAGES"
    mov ecx, PRIVATE
    mov fs, cx
    ISB "[gdt + PRIVATE + 5]", RW_DATA, "accessed bit"
    # A failed load leaves the register and, for POP, the stack pointer.
    mov ecx, BYTE_DATA
    mov fs, cx
    push ABSENT
    mov [scratch], esp
    TRY
    pop fs
    CATCH 11, ABSENT, "pop fs of an absent segment"
    mov ax, fs
    movzx eax, ax
    IS eax, BYTE_DATA, "FS after a failed load"
    add esp, 4
    # LES, LFS and kin.
    mov dword ptr [pointer], 0x1234
    mov word ptr [pointer + 4], ABSENT
    FAULTS 11, ABSENT, "les edi, [pointer]"
    mov word ptr [pointer + 4], 0
    FAULTS 13, 0, "lss edi, [pointer]"
    mov word ptr [pointer + 4], BYTE_DATA
    mov edi, 5
    lgs edi, [pointer]
    IS edi, 0x1234, "LGS: offset"
    # The D flag and granularity of a reloaded descriptor.
    mov ax, DATA0
    mov es, ax
    ret

limits:
    mov ecx, BYTE_DATA
    mov fs, cx
    WORKS "mov al, fs:[0xfff]"
    WORKS "mov ax, fs:[0xffe]"
    WORKS "mov eax, fs:[0xffc]"
    FAULTS 13, 0, "mov al, fs:[0x1000]"
    FAULTS 13, 0, "mov ax, fs:[0xfff]"
    FAULTS 13, 0, "mov eax, fs:[0xffd]"
    FAULTS 13, 0, "mov fs:[0xffd], eax"
    FAULTS 13, 0, "add fs:[0xffe], eax"
    FAULTS 13, 0, "mov eax, fs:[0xffffffff]"
    FAULTS 13, 0, "fld qword ptr fs:[0xff9]"
    WORKS "fld qword ptr fs:[0xff8]"
    FAULTS 13, 0, "fld tbyte ptr fs:[0xff7]"
    FAULTS 13, 0, "fnsave fs:[0xfff]"
    FAULTS 13, 0, "cmpxchg8b fs:[0xff9]"
    FAULTS 13, 0, "sgdt fs:[0xffb]"
    FAULTS 13, 0, "bts dword ptr fs:[0xffd], 1"
    # The bit string's byte is what counts.
    mov ecx, 0x8000
    FAULTS 13, 0, "bts dword ptr fs:[0], ecx"
    mov ecx, 0x7fe0
    WORKS "bts dword ptr fs:[0], ecx"
    mov ecx, PAGED
    mov gs, cx
    WORKS "mov al, gs:[0x1fff]"
    FAULTS 13, 0, "mov al, gs:[0x2000]"
    mov ecx, DOWN16
    mov fs, cx
    FAULTS 13, 0, "mov al, fs:[0xfff]"
    FAULTS 13, 0, "mov al, fs:[0]"
    WORKS "mov al, fs:[0x1000]"
    WORKS "mov eax, fs:[0xfffc]"
    FAULTS 13, 0, "mov eax, fs:[0xfffd]"
    FAULTS 13, 0, "mov al, fs:[0x10000]"
    mov ecx, DOWN32
    mov fs, cx
    FAULTS 13, 0, "mov al, fs:[0xfff]"
    WORKS "mov al, fs:[0x1000]"
    WORKS "mov al, fs:[0x10000]"
    # A stack with a limit: #SS(0).
    DESC BYTE_DATA, 0x48000, 0x7fff, "RW_DATA | DPL3", BIG
    # In ring 3, so that the handler has another. TRY notes the flat stack, to which CATCH returns.
    TRY
    RING 3
    mov ecx, BYTE_DATA + 3
    mov ss, cx
    mov esp, 0x8002
91: push eax
    int DONE
    CATCH 12, 0, "push beyond the limit"
    TRY
    RING 3
    mov ecx, BYTE_DATA + 3
    mov ss, cx
    mov esp, 0x8000
    push eax
    pop eax
    pop eax
    int DONE
    CATCH 12, 0, "pop beyond the limit"
    TRY
    RING 3
    mov ecx, BYTE_DATA + 3
    mov ss, cx
    mov esp, 2
    push eax
    int DONE
    CATCH 12, 0, "push below zero"
    TRY
    RING 3
    mov ecx, BYTE_DATA + 3
    mov ss, cx
    mov ebp, 0x7ffd
    mov eax, [ebp]
    int DONE
    CATCH 12, 0, "an EBP operand beyond the limit"
    TRY
    RING 3
    mov ecx, BYTE_DATA + 3
    mov ss, cx
    mov ebp, 0x7ffd
    mov eax, ds:[ebp]
    int DONE
    CATCH DONE, 0, "an EBP operand elsewhere"
    DESC BYTE_DATA, 0x40000, 0xfff, "RW_DATA | DPL3", 0
    ret

types:
    xor ecx, ecx
    mov fs, cx
    FAULTS 13, 0, "mov al, fs:[0]"
    FAULTS 13, 0, "mov fs:[0], al"
    mov esi, 0
    mov edi, 0
    FAULTS 13, 0, "lodsb al, fs:[esi]"
    mov ecx, READ_ONLY
    mov fs, cx
    WORKS "mov al, fs:[0]"
    FAULTS 13, 0, "mov fs:[0], al"
    FAULTS 13, 0, "or byte ptr fs:[0], 0"
    FAULTS 13, 0, "xchg fs:[0], al"
    mov eax, 1                  # CMPXCHG writes even if it does not match
    FAULTS 13, 0, "cmpxchg fs:[0], ecx"
    FAULTS 13, 0, "setc byte ptr fs:[0]"
    FAULTS 13, 0, "cs: mov cs:[scratch], eax"
    WORKS "mov eax, cs:[scratch]"
    mov ecx, READABLE
    mov fs, cx
    WORKS "mov al, fs:[0]"
    FAULTS 13, 0, "mov fs:[0], al"
    # CMP and TEST do not write.
    mov ecx, READ_ONLY
    mov fs, cx
    WORKS "cmp fs:[0], al"
    WORKS "test fs:[0], al"
    WORKS "bt dword ptr fs:[0], 1"
    # Execute-only code cannot be read.
    TRY
    ljmp EXEC_ONLY, offset 1f
1:  mov eax, cs:[scratch]
    CATCH 13, 0, "reading execute-only code"
    IS "dword ptr [frame + F_EIP]", "offset 1b", "EIP in execute-only code"
    IS "dword ptr [frame + F_CS]", EXEC_ONLY, "CS in execute-only code"
    ret

inspection:
    mov ecx, DATA0
    lar eax, ecx
    and eax, 0x00f0ff00         # the limit's bits are undefined
    IS eax, 0x00c09300, "LAR"
    mov ecx, SYSTEM
    lar eax, ecx
    and eax, 0x00f0ff00
    IS eax, 0x00008200, "LAR of an LDT"
    mov eax, 0x12345678
    mov ecx, DATA0
    lar ax, cx
    IS eax, 0x12349300, "16-bit LAR"
    .macro LOOK insn, selector, zf
    mov ecx, \selector
    \insn
    pushfd
    pop edx
    and edx, ZF
    IS edx, "\zf", "\insn of \selector: ZF"
    .endm
    mov eax, 0x55
    LOOK "lar eax, ecx", 0, 0
    IS eax, 0x55, "LAR of null keeps its destination"
    LOOK "lar eax, ecx", DATA0, ZF
    LOOK "lar eax, ecx", ABSENT, ZF
    LOOK "lar eax, ecx", BEYOND, 0
    LOOK "lar eax, ecx", "PRIVATE + 3", 0
    LOOK "lar eax, ecx", "CONFORMS + 3", ZF
    LOOK "lsl eax, ecx", DATA0, ZF
    IS eax, -1, "LSL of 4 GiB"
    LOOK "lsl eax, ecx", PAGED, ZF
    IS eax, 0x1fff, "LSL of pages"
    LOOK "lsl eax, ecx", DOWN16, ZF
    IS eax, 0xfff, "LSL of expand-down data"
    LOOK "lsl eax, ecx", TSS0, ZF
    IS eax, 0x67, "LSL of a TSS"
    DESC FREE+104, CODE0, 0, CALL_GATE32, 0
    DESC FREE+112, CODE0, 0, INT_GATE32, 0
    LOOK "lsl eax, ecx", FREE+104, 0
    LOOK "lar eax, ecx", FREE+104, ZF
    LOOK "lar eax, ecx", FREE+112, 0
    LOOK "verr cx", DATA0, ZF
    LOOK "verr cx", READABLE, ZF
    LOOK "verr cx", EXEC_ONLY, 0
    LOOK "verr cx", SYSTEM, 0
    LOOK "verr cx", 0, 0
    LOOK "verr cx", "PRIVATE + 3", 0
    LOOK "verr cx", "CONFORMS + 3", ZF
    LOOK "verw cx", DATA0, ZF
    LOOK "verw cx", READ_ONLY, 0
    LOOK "verw cx", READABLE, 0
    LOOK "verw cx", DOWN16, ZF
    LOOK "verw cx", BEYOND, 0
    # ARPL.
    mov ax, 0x10
    mov cx, 3
    arpl ax, cx
    pushfd
    pop edx
    and edx, ZF
    IS edx, ZF, "ARPL raises"
    movzx eax, ax
    IS eax, 0x13, "ARPL's result"
    mov cx, 2
    arpl ax, cx
    pushfd
    pop edx
    and edx, ZF
    IS edx, 0, "ARPL leaves"
    # SGDT, SIDT, SLDT, STR, SMSW work in ring 3 here (no UMIP); their loads do not.
    WORKS3 "sgdt [pointer]"
    ISW "[pointer]", 0x1ff, "SGDT: limit"
    IS "dword ptr [pointer + 2]", "offset gdt", "SGDT: base"
    WORKS3 "sidt [pointer]"
    ISW "[pointer]", 0x7ff, "SIDT: limit"
    IS "dword ptr [pointer + 2]", "offset idt", "SIDT: base"
    WORKS3 "str [pointer]"
    ISW "[pointer]", TSS0, "STR"
    WORKS3 "sldt [pointer]"
    ISW "[pointer]", 0, "SLDT"
    mov eax, -1
    str eax
    IS eax, TSS0, "STR to a register zero-extends"
    smsw eax
    mov ecx, cr0
    IS eax, ecx, "SMSW to a 32-bit register"
    FAULTS3 13, 0, "lgdt [gdtr]"
    FAULTS3 13, 0, "lidt [idtr]"
    FAULTS3 13, 0, "lldt cx"
    FAULTS3 13, 0, "ltr cx"
    FAULTS3 13, 0, "lmsw cx"
    FAULTS3 13, 0, "clts"
    FAULTS3 13, 0, "hlt"
    FAULTS3 13, 0, "mov eax, cr0"
    FAULTS3 13, 0, "mov cr3, eax"
    FAULTS3 13, 0, "mov eax, dr0"
    FAULTS3 13, 0, "mov dr7, eax"
    FAULTS3 13, 0, "invlpg [0]"
    FAULTS3 13, 0, "wbinvd"
    FAULTS3 13, 0, "rdmsr"
    FAULTS3 13, 0, "wrmsr"
    FAULTS3 13, 0, "cli"
    FAULTS3 13, 0, "sti"
    FAULTS3 13, 0, "in al, 0x80"
    FAULTS3 13, 0, "out 0x80, al"
    WORKS3 "cli", 0x3002
    WORKS3 "in al, 0x80", 0x3002
    # LLDT and LTR of what they cannot take.
    mov ecx, DATA0
    FAULTS 13, DATA0, "lldt cx"
    mov ecx, 4
    FAULTS 13, 4, "lldt cx"
    mov ecx, BEYOND
    FAULTS 13, BEYOND, "lldt cx"
    mov ecx, 0
    WORKS "lldt cx"
    NOT_ON_TCG 1f               # it loads a null TR
    mov ecx, 0
    FAULTS 13, 0, "ltr cx"
1:
    mov ecx, TSS0               # busy
    FAULTS 13, TSS0, "ltr cx"
    mov ecx, DATA0
    FAULTS 13, DATA0, "ltr cx"
    DESC FREE+104, 0x40000, 0x67, "TSS_32 & ~PRESENT", 0
    mov ecx, FREE+104
    FAULTS 11, FREE+104, "ltr cx"
    DESC FREE+104, 0x40000, 0x67, "LDT & ~PRESENT", 0
    mov ecx, FREE+104
    FAULTS 11, FREE+104, "lldt cx"
    # INT n that its gate forbids; of a vector beyond the IDT.
    FAULTS3 13, "13 * 8 + 2", "int 13"
    FAULTS3 13, "3 * 8 + 2", "int3"
    FAULTS3 13, "2 * 8 + 2", "int 2"
    mov word ptr [idtr], 0x30 * 8 + 6
    lidt [idtr]
    FAULTS 13, "0x30 * 8 + 2", "int 0x30"
    mov word ptr [idtr], 0x7ff
    lidt [idtr]
    ret

code_limits:
    NOT_ON_TCG not_code         # it does not check the limit of code
    # Far and near transfers beyond the limit.
    FAULTS 13, 0, "ljmp SHORT_CODE, 0x1000"
    FAULTS 13, 0, "lcall SHORT_CODE, 0x1000"
    DESC SHORT_CODE, "offset 2f", 0xf, RX_CODE, BIG
    TRY
    ljmp SHORT_CODE, 0
    .balign 16
2:  jmp . + 0x20
    CATCH 13, 0, "a near jump beyond the limit"
    IS "dword ptr [frame + F_EIP]", 0, "EIP of a jump beyond the limit"
    IS "dword ptr [frame + F_CS]", SHORT_CODE, "CS of a jump beyond the limit"
    # Running over the limit.
    DESC SHORT_CODE, "offset 3f", 0x3, RX_CODE, BIG
    TRY
    ljmp SHORT_CODE, 0
    .balign 16
3:  nop
    nop
    mov eax, 0x12345678
    CATCH 13, 0, "an instruction over the limit"
    IS "dword ptr [frame + F_EIP]", 2, "EIP of an instruction over the limit"
    DESC SHORT_CODE, "offset 4f", 0x3, RX_CODE, BIG
    TRY
    ljmp SHORT_CODE, 0
    .balign 16
4:  nop
    nop
    nop
    nop
    nop
    CATCH 13, 0, "running past the limit"
    IS "dword ptr [frame + F_EIP]", 4, "EIP past the limit"
    # An invalid opcode that ends beyond the limit is never seen whole.
    DESC SHORT_CODE, "offset 4f", 0x2, RX_CODE, BIG
    TRY
    ljmp SHORT_CODE, 0
    .balign 16
4:  nop
    nop
    ud2
    CATCH 13, 0, "an invalid opcode over the limit"
    IS "dword ptr [frame + F_EIP]", 2, "EIP of an invalid opcode over the limit"
    DESC SHORT_CODE, "offset 4f", 0x3, RX_CODE, BIG
    TRY
    ljmp SHORT_CODE, 0
    .balign 16
4:  nop
    nop
    ud2
    CATCH 6, 0, "an invalid opcode up to the limit"
    DESC SHORT_CODE, "offset 4f", 13, RX_CODE, BIG
    TRY
    ljmp SHORT_CODE, 0
    .balign 16
4:  .fill 15, 1, 0x66
    CATCH 13, 0, "fourteen prefixes up to the limit"
    # Near calls and returns, indirect too.
    DESC SHORT_CODE, "offset 5f", 0xf, RX_CODE, BIG
    mov eax, 0x10
    TRY
    ljmp SHORT_CODE, 0
    .balign 16
5:  call eax
    CATCH 13, 0, "a near call beyond the limit"
    IS "dword ptr [frame + F_EIP]", 0, "EIP of a near call beyond the limit"
    DESC SHORT_CODE, "offset 6f", 0xf, RX_CODE, BIG
    push 0x10
    TRY
    ljmp SHORT_CODE, 0
    .balign 16
6:  ret
    CATCH 13, 0, "a near return beyond the limit"
    add esp, 4
    IS "dword ptr [frame + F_EIP]", 0, "EIP of a near return beyond the limit"
not_code:
    # What is not code.
    FAULTS 13, DATA0, "ljmp DATA0, 0"
    FAULTS 13, 0, "ljmp 0, 0"
    FAULTS 13, 0, "lcall 3, 0"
    FAULTS 13, BEYOND, "ljmp BEYOND, 0"
    FAULTS 13, "CODE3 & ~3", "ljmp CODE3, 0"
    FAULTS 13, SYSTEM, "lcall SYSTEM, 0"
    DESC FREE+104, 0, 0xfffff, "RX_CODE & ~PRESENT", "BIG | PAGES"
    FAULTS 11, FREE+104, "ljmp FREE+104, 0"
    FAULTS3 13, CODE0, "ljmp CODE0, 0"
    # RPL above CPL for what is not conforming.
    FAULTS 13, CODE0, "ljmp CODE0 + 3, 0"
    TRY
    RING 3
    ljmp CONFORMS, offset 7f
7:  int DONE
    CATCH DONE, 0, "ring 3: jump to conforming code"
    IS "dword ptr [frame + F_CS]", "CONFORMS + 3", "CS in conforming code"
    ret

ldt_tests:
    DESCAT 0x40008, 0x40000, 0xfff, RW_DATA, BIG
    DESC SYSTEM, 0x40000, 0xf, LDT, 0
    mov ecx, SYSTEM
    lldt cx
    sldt eax
    IS eax, SYSTEM, "SLDT"
    mov dword ptr [0x40010], 0xfeedbeef
    mov ecx, 0xc
    mov fs, cx
    mov eax, fs:[0x10]
    IS eax, 0xfeedbeef, "data through the LDT"
    mov ecx, 0x14
    FAULTS 13, 0x14, "mov fs, cx"
    mov ecx, 4                  # entry 0 of an LDT is not null
    FAULTS 13, 4, "mov fs, cx"
    xor ecx, ecx
    lldt cx
    mov ecx, 0xc
    FAULTS 13, 0xc, "mov fs, cx"
    ret

.data
scratch: .long 0
pointer: .skip 16
