# 32-bit paging: rights of all combinations, accessed and dirty bits, accesses over two pages, restarts,
# translations that must be forgotten.
.include "guest.inc"

.set DIRECTORY, 0x100000
.set TABLE0, 0x101000           # the first 4 MiB, one to one
.set TABLE1, 0x102000           # the next 4 MiB, for tests
.set FRAMES, 0x200000           # what the test pages are mapped to
.set LIN, 0x400000
.set PTE0, TABLE1
.set PTE1, TABLE1 + 4
.set PTE2, TABLE1 + 8
.set PDE1, DIRECTORY + 4
.set PDE2, DIRECTORY + 8

.set P, 1
.set RW, 2
.set US, 4
.set A, 0x20
.set D, 0x40
.set PS, 0x80
.set G, 0x100
.set ALL, P | RW | US

.set CR0_WP, 0x10000
.set CR0_PG, 0x80000000
.set CR4_PSE, 0x10
.set CR4_PGE, 0x80

.macro FLUSH
    mov eax, cr3
    mov cr3, eax
.endm

main:
    mov edi, TABLE0
    mov eax, ALL
    mov ecx, 1024
1:  stosd
    add eax, 0x1000
    loop 1b
    mov dword ptr [DIRECTORY], TABLE0 + ALL
    call standard
    mov eax, DIRECTORY
    mov cr3, eax
    mov eax, cr0
    or eax, CR0_PG
    mov cr0, eax
    jmp 1f
1:
    call matrix
    call bits
    call two_pages
    call restarts
    call strings
    call forgetting
    call large
    call implicit
    ret

# Three test pages, all rights, then one that is not present.
standard:
    mov dword ptr [PDE1], TABLE1 + ALL
    mov dword ptr [PTE0], FRAMES + ALL
    mov dword ptr [PTE1], FRAMES + 0x1000 + ALL
    mov dword ptr [PTE2], FRAMES + 0x2000 + ALL
    mov dword ptr [PTE2 + 4], 0
    mov eax, cr3
    mov cr3, eax
    ret

# All rights in directory and table, WP, privilege, read and write. Bits of EBX: 0-2 the directory's P RW
# US, 3-5 the table's, 6 WP, 7 write, 8 user.
matrix:
    xor ebx, ebx
next_case:
    mov eax, ebx
    and eax, 7
    or eax, TABLE1
    mov [PDE1], eax
    mov eax, ebx
    shr eax, 3
    and eax, 7
    or eax, FRAMES
    mov [PTE0], eax
    mov eax, cr0
    and eax, ~CR0_WP
    test ebx, 0x40
    jz 1f
    or eax, CR0_WP
1:  mov cr0, eax
    FLUSH
    mov [index], ebx
    mov dword ptr [frame + F_ERROR], 0
    TRY
    test ebx, 0x100
    jz 2f
    mov edi, ebx
    RING 3
    mov ebx, edi
2:  test ebx, 0x80
    jnz 3f
    mov eax, [LIN]
    int DONE
3:  mov [LIN], eax
    int DONE
    CATCH "dword ptr [frame + F_VECTOR]", "dword ptr [frame + F_ERROR]", "fine"
    # What it should have been, in EDX: vector and error code.
    mov ebx, [index]
    mov eax, ebx
    shr eax, 3
    and eax, ebx
    and eax, 7                  # rights of both levels
    xor ecx, ecx
    test ebx, 0x80
    jz 1f
    or ecx, 2
1:  test ebx, 0x100
    jz 1f
    or ecx, 4
1:  test eax, P
    jz faulted
    or ecx, 1
    test ecx, 4
    jz supervisor
    test eax, US
    jz faulted
    test ecx, 2
    jz allowed
    test eax, RW
    jz faulted
    jmp allowed
supervisor:
    test ecx, 2
    jz allowed
    test eax, RW
    jnz allowed
    test ebx, 0x40
    jz allowed
faulted:
    mov edx, 0x0e00
    or edx, ecx
    jmp 1f
allowed:
    mov edx, DONE << 8
1:  shl ebx, 16
    or edx, ebx
    mov eax, [frame + F_VECTOR]
    shl eax, 8
    or eax, [frame + F_ERROR]
    or eax, ebx
    IS eax, edx, "rights (case, vector, error code)"
    cmp dword ptr [frame + F_VECTOR], 14
    jne 1f
    IS "dword ptr [caught_cr2]", LIN, "CR2"
1:  mov ebx, [index]
    inc ebx
    cmp ebx, 0x200
    jb next_case
    mov eax, cr0
    and eax, ~CR0_WP
    mov cr0, eax
    call standard
    ret

# Accessed and dirty.
bits:
    mov dword ptr [PDE1], TABLE1 + ALL
    mov dword ptr [PTE0], FRAMES + ALL
    FLUSH
    mov eax, [LIN + 4]
    IS "dword ptr [PTE0]", "FRAMES + ALL + A", "a read sets A"
    IS "dword ptr [PDE1]", "TABLE1 + ALL + A", "a read sets A in the directory"
    mov [LIN + 4], eax
    IS "dword ptr [PTE0]", "FRAMES + ALL + A + D", "a write sets D"
    IS "dword ptr [PDE1]", "TABLE1 + ALL + A", "a write sets no D in the directory"
    # A write that finds the page in the TLB, but clean.
    mov dword ptr [PTE0], FRAMES + ALL
    FLUSH
    cmp dword ptr [LIN], 0
    IS "dword ptr [PTE0]", "FRAMES + ALL + A", "CMP sets no D"
    add dword ptr [LIN], 0
    IS "dword ptr [PTE0]", "FRAMES + ALL + A + D", "ADD sets D"
    # A write that faults sets no D.
    mov dword ptr [PTE0], FRAMES + P + US
    FLUSH
    TRY
    RING 3
    mov [LIN], eax
    int DONE
    CATCH 14, 7, "a write to a read-only page"
    mov eax, [PTE0]
    and eax, D
    IS eax, 0, "no D after a fault"
    # Code fetches set A.
    mov dword ptr [PTE0], FRAMES + ALL
    mov byte ptr [FRAMES], 0xc3
    FLUSH
    mov eax, LIN
    call eax
    IS "dword ptr [PTE0]", "FRAMES + ALL + A", "a fetch sets A"
    # Descriptor tables and stacks are supervisor accesses, whatever the CPL.
    ret

two_pages:
    call standard
    mov dword ptr [FRAMES + 0xffc], 0x44332211
    mov dword ptr [FRAMES + 0x1000], 0x88776655
    IS "dword ptr [LIN + 0xffe]", 0x66554433, "a read over two pages"
    mov dword ptr [LIN + 0xfff], 0xddccbbaa
    IS "dword ptr [FRAMES + 0xffc]", 0xaa332211, "a write over two pages"
    IS "dword ptr [FRAMES + 0x1000]", 0x88ddccbb, "its second part"
    add dword ptr [LIN + 0xffd], 0x01010101
    IS "dword ptr [FRAMES + 0xffc]", 0xab342311, "a change over two pages"
    # Pages that do not follow each other in memory.
    mov dword ptr [PTE1], FRAMES + 0x5000 + ALL
    mov dword ptr [FRAMES + 0x5000], 0x99aabbcc
    FLUSH
    IS "dword ptr [LIN + 0xffe]", 0xbbccab34, "a read over two pages apart"
    # The second is not there: nothing of the first is written, CR2 is the second's.
    mov dword ptr [PTE1], 0
    FLUSH
    mov dword ptr [LIN + 0xffc], 0x12345678
    FAULTS 14, 2, "mov [LIN + 0xffe], eax"
    IS "dword ptr [caught_cr2]", "LIN + 0x1000", "CR2 of the second page"
    IS "dword ptr [FRAMES + 0xffc]", 0x12345678, "the first page is as it was"
    FAULTS 14, 0, "mov eax, [LIN + 0xffd]"
    IS "dword ptr [caught_cr2]", "LIN + 0x1000", "CR2 of the second page"
    NOT_ON_TCG 1f               # it reads first
    FAULTS 14, 2, "add [LIN + 0xfff], eax"
    IS "dword ptr [FRAMES + 0xffc]", 0x12345678, "the first page is as it was"
1:
    FAULTS 14, 2, "fnstenv [LIN + 0xff0]"
    FAULTS 14, 2, "fxsave [LIN + 0xf80]"
    # The first is not there: CR2 is the operand's.
    mov dword ptr [PTE0], 0
    mov dword ptr [PTE1], FRAMES + 0x1000 + ALL
    FLUSH
    FAULTS 14, 2, "mov [LIN + 0xffe], eax"
    IS "dword ptr [caught_cr2]", "LIN + 0xffe", "CR2 of the first page"
    # The second is read-only for the user.
    mov dword ptr [PTE0], FRAMES + ALL
    mov dword ptr [PTE1], FRAMES + 0x1000 + P + US
    FLUSH
    mov dword ptr [LIN + 0xffc], 0x12345678
    FAULTS3 14, 7, "mov [LIN + 0xffe], eax"
    IS "dword ptr [caught_cr2]", "LIN + 0x1000", "CR2 of a read-only second page"
    IS "dword ptr [FRAMES + 0xffc]", 0x12345678, "the first page is as it was"
    # Code over two pages, the second not there; then there.
    call standard
    mov word ptr [FRAMES + 0xffe], 0x11b8
    mov dword ptr [FRAMES + 0x1000], 0xc3443322
    mov eax, LIN + 0xffe
    call eax
    IS eax, 0x44332211, "an instruction over two pages"
    mov dword ptr [PTE1], 0
    FLUSH
    TRY
    mov eax, LIN + 0xffe
    call eax
    CATCH 14, 0, "an instruction with its second page missing"
    IS "dword ptr [frame + F_EIP]", "LIN + 0xffe", "EIP is its first byte's"
    IS "dword ptr [caught_cr2]", "LIN + 0x1000", "CR2 is the second page"
    # The second page mapped elsewhere: the same first bytes, another instruction.
    mov dword ptr [PTE1], FRAMES + 0x5000 + ALL
    mov dword ptr [FRAMES + 0x5000], 0xc3aabbcc
    FLUSH
    mov eax, LIN + 0xffe
    call eax
    IS eax, 0xaabbcc11, "an instruction whose second page was remapped"
    mov dword ptr [PTE1], FRAMES + 0x1000 + ALL
    FLUSH
    mov eax, LIN + 0xffe
    call eax
    IS eax, 0x44332211, "and mapped back"
    # A fall-through from one page to the next, remapped.
    mov dword ptr [FRAMES + 0xffc], 0x90909090
    mov dword ptr [FRAMES + 0x1000], 0xc301b0
    mov dword ptr [FRAMES + 0x5000], 0xc302b0
    xor eax, eax
    mov ecx, LIN + 0xffc
    call ecx
    IS eax, 1, "running on into the next page"
    mov dword ptr [PTE1], FRAMES + 0x5000 + ALL
    FLUSH
    mov ecx, LIN + 0xffc
    xor eax, eax
    call ecx
    IS eax, 2, "running on into a page that was remapped"
    mov dword ptr [PTE1], FRAMES + 0x1000 + ALL
    invlpg [LIN + 0x1000]
    mov ecx, LIN + 0xffc
    xor eax, eax
    call ecx
    IS eax, 1, "and mapped back, by INVLPG"
    # User code in a supervisor page.
    mov dword ptr [PTE1], FRAMES + 0x1000 + P + RW
    FLUSH
    TRY
    RING 3
    mov eax, LIN + 0xffc
    jmp eax
    CATCH 14, 5, "user code running into a supervisor page"
    IS "dword ptr [frame + F_EIP]", "LIN + 0x1000", "EIP is the page's first byte"
    ret

# Instructions of several accesses that fault in the middle: nothing of them has happened, and they
# complete when the page is there. The stack is at the start of the second page; the first is missing.
restarts:
    .macro MIDWAY esp, insn, result
    call standard
    mov dword ptr [PTE0], 0
    FLUSH
    TRY
    RING 3
    mov esp, \esp
    mov ebp, LIN + 0x1100
    mov eax, 0xa0
    mov ecx, 0xc0
    mov edi, 0xd1
    mov esi, 0x51
91: \insn
    int DONE
    CATCH 14, 6, "\insn on a missing page"
    IS "dword ptr [frame + F_EIP]", "offset 91b", "\insn: EIP"
    IS "dword ptr [frame + F_ESP]", "\esp", "\insn: ESP is as it was"
    IS "dword ptr [frame + F_EBP]", "LIN + 0x1100", "\insn: EBP is as it was"
    IS "dword ptr [frame + F_CS]", CODE3, "\insn: CS is as it was"
    # Again, with the handler mapping the page.
    mov dword ptr [hook], offset map_page
    TRY
    RING 3
    mov esp, \esp
    mov ebp, LIN + 0x1100
    mov eax, 0xa0
    mov ecx, 0xc0
    mov edi, 0xd1
    mov esi, 0x51
    \insn
97: mov [saved], esp
    mov [saved + 4], ebp
    mov dword ptr [hook], 0
    int DONE
    CATCH DONE, 0, "\insn restarted"
    IS "dword ptr [saved]", "\result", "\insn restarted: ESP"
    .endm
    MIDWAY "LIN + 0x1008", "pushad", "LIN + 0x1008 - 32"
    IS "dword ptr [FRAMES + 0x1004]", 0xa0, "PUSHA: EAX"
    IS "dword ptr [FRAMES + 0x1000]", 0xc0, "PUSHA: ECX"
    IS "dword ptr [FRAMES + 0x1000 - 8 - 4]", "LIN + 0x1008", "PUSHA: ESP"
    IS "dword ptr [FRAMES + 0x1008 - 32]", 0xd1, "PUSHA: EDI"
    MIDWAY "LIN + 0x1004", "enter 16, 3", "LIN + 0x1004 - 32"
    IS "dword ptr [saved + 4]", "LIN + 0x1000", "ENTER: EBP"
    NOT_ON_TCG 1f               # it writes with ring 0's rights
    MIDWAY "LIN + 0x1004", "lcall CODE3, offset 97f", "LIN + 0x1004 - 8"
    IS "dword ptr [FRAMES + 0x1000]", CODE3, "CALL: CS pushed"
1:
    MIDWAY "LIN + 0x1000", "call 97f", "LIN + 0x1000 - 4"
    MIDWAY "LIN + 0x1002", "push eax", "LIN + 0x1002 - 4"
    MIDWAY "LIN + 0x1001", "pushw ax", "LIN + 0x1001 - 2"
    MIDWAY "LIN + 0x1000", "pushfd", "LIN + 0x1000 - 4"
    MIDWAY "LIN + 0x1000", "push fs", "LIN + 0x1000 - 4"
    MIDWAY "LIN + 0x1000", "push dword ptr [LIN + 0x1000]", "LIN + 0x1000 - 4"
    # Reads: POPA, LEAVE, RETF, IRET, LES, POP to memory.
    call standard
    mov dword ptr [PTE1], 0
    FLUSH
    .macro READS insn
    TRY
    RING 3
    mov esp, LIN + 0xffc
    mov ebp, 0xb9
    mov edi, 0xd1
91: \insn
    int DONE
    CATCH 14, 4, "\insn on a missing page"
    IS "dword ptr [frame + F_EIP]", "offset 91b", "\insn: EIP"
    IS "dword ptr [frame + F_ESP]", "LIN + 0xffc", "\insn: ESP is as it was"
    IS "dword ptr [frame + F_EBP]", 0xb9, "\insn: EBP is as it was"
    IS "dword ptr [frame + F_EDI]", 0xd1, "\insn: EDI is as it was"
    .endm
    NOT_ON_TCG 1f               # POPA loses registers, the others read with ring 0's rights
    READS "popad"
    READS "retf"
    READS "iretd"
1:
    mov dword ptr [LIN + 0xffc], 0x5555
    READS "les edi, [LIN + 0xffc]"
    READS "lss edi, [LIN + 0xffc]"
    READS "bound edi, [LIN + 0xffc]"
    READS "fld qword ptr [LIN + 0xffc]"
    READS "fldenv [LIN + 0xffc]"
    # POP into a missing page keeps ESP.
    mov dword ptr [FRAMES + 0xff8], 0x77
    TRY
    RING 3
    mov esp, LIN + 0xff8
91: pop dword ptr [LIN + 0x1000]
    int DONE
    CATCH 14, 6, "POP into a missing page"
    IS "dword ptr [frame + F_ESP]", "LIN + 0xff8", "POP into a missing page: ESP"
    # Read-modify-write of a page that can only be read: no flags, no registers.
    mov dword ptr [PTE1], FRAMES + 0x1000 + P + US
    FLUSH
    mov dword ptr [FRAMES + 0x1000], 5
    .macro KEEPS insn
    TRY
    RING 3, 0x03
    mov eax, 5
    mov ecx, 7
91: \insn
    int DONE
    CATCH 14, 7, "\insn of a read-only page"
    IS "dword ptr [frame + F_EIP]", "offset 91b", "\insn: EIP"
    IS "dword ptr [frame + F_EAX]", 5, "\insn: EAX"
    IS "dword ptr [frame + F_ECX]", 7, "\insn: ECX"
    IS "dword ptr [FRAMES + 0x1000]", 5, "\insn: memory"
    mov eax, [frame + F_EFLAGS]
    and eax, 0x8d5
    IS eax, 1, "\insn: flags"
    .endm
    KEEPS "add [LIN + 0x1000], ecx"
    KEEPS "inc dword ptr [LIN + 0x1000]"
    KEEPS "xchg [LIN + 0x1000], ecx"
    KEEPS "xadd [LIN + 0x1000], ecx"
    KEEPS "cmpxchg [LIN + 0x1000], ecx"
    KEEPS "lock cmpxchg8b [LIN + 0x1000]"
    KEEPS "bts dword ptr [LIN + 0x1000], 3"
    KEEPS "shl dword ptr [LIN + 0x1000], 3"
    KEEPS "neg dword ptr [LIN + 0x1000]"
    KEEPS "not dword ptr [LIN + 0x1000]"
    KEEPS "shld [LIN + 0x1000], ecx, 3"
    NOT_ON_TCG 1f               # it loses the carry
    KEEPS "rcl dword ptr [LIN + 0x1000], 1"
1:  call standard
    ret

# A hook: maps the first test page and returns to the instruction.
map_page:
    cmp dword ptr [ebx + F_VECTOR], 14
    jne 1f
    mov dword ptr [PTE0], FRAMES + ALL
    mov dword ptr [PTE1], FRAMES + 0x1000 + ALL
    invlpg [LIN]
    invlpg [LIN + 0x1000]
    ret
1:  mov dword ptr [hook], 0     # not for us: to the end
    mov esi, ebx
    mov edi, offset frame
    mov ecx, FRAME_DWORDS
    rep movsd
    mov esp, [home]
    jmp dword ptr [resume]

# Repeated string instructions that fault in the middle.
strings:
    .macro STRING insn, error, esi, edi, ecx, esi2, edi2, ecx2, direction
    call standard
    mov dword ptr [PTE2], 0
    FLUSH
    TRY
    RING 3, "\direction"
    mov esi, \esi
    mov edi, \edi
    mov ecx, \ecx
    mov eax, 0x5a5a5a5a
91: \insn
    int DONE
    cld
    CATCH 14, "\error", "\insn into a missing page"
    IS "dword ptr [frame + F_EIP]", "offset 91b", "\insn: EIP"
    IS "dword ptr [frame + F_ESI]", "\esi2", "\insn: ESI"
    IS "dword ptr [frame + F_EDI]", "\edi2", "\insn: EDI"
    IS "dword ptr [frame + F_ECX]", "\ecx2", "\insn: ECX"
    .endm
    mov edi, FRAMES
    mov ecx, 0x1800
    xor eax, eax
    rep stosb
    STRING "rep movsb", 6, LIN, LIN+0x1ff0, 0x20, LIN+0x10, LIN+0x2000, 0x10, 2
    STRING "rep movsd", 6, LIN, LIN+0x1ff2, 0x20, LIN+0xc, LIN+0x1ffe, 0x1d, 2
    STRING "rep movsd", 4, LIN+0x1ff8, LIN, 0x20, LIN+0x2000, LIN+8, 0x1e, 2
    STRING "rep movsw", 4, LIN+0x1fff, LIN, 0x20, LIN+0x1fff, LIN, 0x20, 2
    STRING "rep stosd", 6, 1, LIN+0x1000, 0x1000, 1, LIN+0x2000, 0xc00, 2
    STRING "rep stosb", 6, 1, LIN+0x2001, 4, 1, LIN+0x2001, 4, DF+2
    STRING "rep lodsd", 4, LIN+0x1ff4, 1, 0x1000, LIN+0x2000, 1, 0xffd, 2
    .purgem STRING
    # A comparison that meets the missing page.
    call standard
    mov edi, LIN
    mov ecx, 0x800
    xor eax, eax
    rep stosd
    mov dword ptr [PTE2], 0
    FLUSH
    TRY
    RING 3
    mov esi, LIN
    mov edi, LIN + 0x1f00
    mov ecx, 0x1000
91: repe cmpsb
    int DONE
    CATCH 14, 4, "REPE CMPSB into a missing page"
    IS "dword ptr [frame + F_EIP]", "offset 91b", "REPE CMPSB: EIP"
    IS "dword ptr [frame + F_ECX]", 0xf00, "REPE CMPSB: ECX"
    IS "dword ptr [frame + F_ESI]", "LIN + 0x100", "REPE CMPSB: ESI"
    TRY
    RING 3
    mov al, 1
    mov edi, LIN + 0x1f00
    mov ecx, 0x1000
91: repne scasb
    int DONE
    CATCH 14, 4, "REPNE SCASB into a missing page"
    IS "dword ptr [frame + F_EDI]", "LIN + 0x2000", "REPNE SCASB: EDI"
    IS "dword ptr [frame + F_ECX]", 0xf00, "REPNE SCASB: ECX"
    # Downwards out of the test pages.
    mov dword ptr [PTE0], 0
    FLUSH
    TRY
    RING 3, "DF + 2"
    mov eax, 0x77
    mov edi, LIN + 0x1010
    mov ecx, 0x100
91: rep stosd
    int DONE
    cld
    CATCH 14, 6, "REP STOSD downwards into a missing page"
    IS "dword ptr [frame + F_EDI]", "LIN + 0xffc", "REP STOSD downwards: EDI"
    IS "dword ptr [frame + F_ECX]", "0x100 - 5", "REP STOSD downwards: ECX"
    # Restarted by the handler, all of it gets done.
    call standard
    mov dword ptr [PTE1], 0
    FLUSH
    mov dword ptr [hook], offset map_page
    TRY
    RING 3
    mov eax, 0x12345678
    mov edi, LIN + 2
    mov ecx, 0x600
    rep stosd
    mov dword ptr [hook], 0
    int DONE
    CATCH DONE, 0, "REP STOSD restarted"
    IS "dword ptr [FRAMES + 0xffe]", 0x12345678, "REP STOSD restarted: at the boundary"
    IS "dword ptr [FRAMES + 0x17fe]", 0x12345678, "REP STOSD restarted: at the end"
    # INS checks memory before it reads the port; a missing page costs no input.
    call standard
    mov dword ptr [PTE0], 0
    FLUSH
    TRY
    mov edi, LIN
    mov edx, 0x3fd
91: insb
    int DONE
    CATCH 14, 2, "INSB into a missing page"
    IS "dword ptr [frame + F_EDI]", LIN, "INSB into a missing page: EDI"
    call standard
    # Overlapping moves repeat a pattern.
    mov dword ptr [LIN], 0x04030201
    mov esi, LIN
    mov edi, LIN + 1
    mov ecx, 0x1100
    rep movsb
    IS "dword ptr [LIN + 0x10f0]", 0x01010101, "REP MOVSB one byte up"
    mov dword ptr [LIN], 0x04030201
    mov esi, LIN
    mov edi, LIN + 2
    mov ecx, 16
    rep movsd
    IS "dword ptr [LIN + 0x20]", 0x01010101, "REP MOVSD two bytes up"
    ret

# Translations that must be forgotten.
forgetting:
    call standard
    mov dword ptr [FRAMES], 0x1111
    mov dword ptr [FRAMES + 0x1000], 0x2222
    IS "dword ptr [LIN]", 0x1111, "as mapped"
    mov dword ptr [PTE0], FRAMES + 0x1000 + ALL
    invlpg [LIN + 0x123]
    IS "dword ptr [LIN]", 0x2222, "after INVLPG"
    mov dword ptr [PTE0], FRAMES + ALL
    FLUSH
    IS "dword ptr [LIN]", 0x1111, "after a load of CR3"
    # Rights taken away.
    mov dword ptr [LIN], 0x1111
    mov dword ptr [PTE0], FRAMES + P + US
    invlpg [LIN]
    FAULTS3 14, 7, "mov [LIN], eax"
    mov dword ptr [PTE0], 0
    invlpg [LIN]
    FAULTS 14, 0, "mov eax, [LIN]"
    # A fault leaves nothing behind: the page can be mapped without INVLPG.
    mov dword ptr [PTE0], FRAMES + ALL
    WORKS "mov eax, [LIN]"
    mov dword ptr [PTE0], FRAMES + P + US
    FLUSH
    FAULTS3 14, 7, "mov [LIN], eax"
    mov dword ptr [PTE0], FRAMES + ALL
    WORKS3 "mov [LIN], eax"
    # Global pages outlive CR3, not INVLPG, nor a change of CR4.PGE.
    mov eax, cr4
    or eax, CR4_PGE
    mov cr4, eax
    mov dword ptr [PTE0], FRAMES + ALL + G
    invlpg [LIN]
    mov dword ptr [FRAMES], 0x1111
    IS "dword ptr [LIN]", 0x1111, "a global page"
    mov dword ptr [PTE0], FRAMES + 0x1000 + ALL + G
    FLUSH
    mov eax, [LIN]              # either is allowed; it must be one of them
    cmp eax, 0x1111
    je 1f
    IS eax, 0x2222, "a global page after a load of CR3"
1:  invlpg [LIN]
    IS "dword ptr [LIN]", 0x2222, "a global page after INVLPG"
    mov dword ptr [PTE0], FRAMES + ALL + G
    mov eax, cr4
    and eax, ~CR4_PGE
    mov cr4, eax
    IS "dword ptr [LIN]", 0x1111, "a global page after CR4.PGE was cleared"
    # Without PGE the bit means nothing.
    mov dword ptr [PTE0], FRAMES + 0x1000 + ALL + G
    FLUSH
    IS "dword ptr [LIN]", 0x2222, "G without PGE"
    # Paging off and on.
    mov dword ptr [PTE0], FRAMES + ALL
    mov eax, cr0
    and eax, ~CR0_PG
    mov cr0, eax
    jmp 1f
1:  mov dword ptr [LIN], 0x4444 # now physical
    or eax, CR0_PG
    mov cr0, eax
    jmp 1f
1:  IS "dword ptr [LIN]", 0x1111, "paging off and on"
    # An alias sees what is written through the other.
    mov dword ptr [PTE1], FRAMES + ALL
    FLUSH
    mov dword ptr [LIN + 0x10], 0xabcd
    IS "dword ptr [LIN + 0x1010]", 0xabcd, "an alias"
    # WP is looked at when it changes.
    mov dword ptr [PTE0], FRAMES + P
    FLUSH
    WORKS "mov [LIN], eax"
    mov eax, cr0
    or eax, CR0_WP
    mov cr0, eax
    FAULTS 14, 3, "mov [LIN], eax"
    mov eax, cr0
    and eax, ~CR0_WP
    mov cr0, eax
    WORKS "mov [LIN], eax"
    call standard
    ret

# 4 MiB pages.
large:
    mov eax, cr4
    or eax, CR4_PSE
    mov cr4, eax
    mov dword ptr [PDE2], 0x400000 + ALL + PS
    FLUSH
    mov eax, cr0
    and eax, ~CR0_PG
    mov cr0, eax
    jmp 1f
1:  mov dword ptr [0x412344], 0x600d
    or eax, CR0_PG
    mov cr0, eax
    jmp 1f
1:  IS "dword ptr [0x812344]", 0x600d, "through a 4 MiB page"
    IS "dword ptr [PDE2]", "0x400000 + ALL + PS + A", "A of a 4 MiB page"
    mov dword ptr [0x812344], 1
    IS "dword ptr [PDE2]", "0x400000 + ALL + PS + A + D", "D of a 4 MiB page"
    # INVLPG of one address forgets all of it.
    mov eax, [0x800000]
    mov dword ptr [FRAMES], 0x1111
    mov dword ptr [PDE2], 0x0 + ALL + PS
    invlpg [0x812344]
    IS "dword ptr [0x800000 + FRAMES]", 0x1111, "INVLPG of a 4 MiB page"
    mov dword ptr [PDE2], P + PS
    FLUSH
    FAULTS3 14, 5, "mov eax, [0x800000]"
    mov dword ptr [PDE2], P + PS + US
    FLUSH
    FAULTS3 14, 7, "mov [0x800000 + FRAMES], eax"
    NOT_ON_TCG 1f               # it has PSE-36
    mov dword ptr [PDE2], 0x2000 + ALL + PS
    FLUSH
    FAULTS 14, 9, "mov eax, [0x800000]"
    FAULTS3 14, 15, "mov [0x800000], eax"
1:  mov eax, cr4
    and eax, ~CR4_PSE
    mov cr4, eax
    # Without PSE the bit means nothing: the entry leads to a table.
    mov dword ptr [PDE2], TABLE1 + ALL + PS
    mov dword ptr [FRAMES], 0x1111
    FLUSH
    IS "dword ptr [0x800000]", 0x1111, "PS without PSE"
    mov dword ptr [PDE2], 0
    FLUSH
    ret

# What the processor does by itself has supervisor rights: tables, TSS; and faults like any access.
implicit:
    mov dword ptr [PTE0], FRAMES + P + RW
    mov dword ptr [PTE1], 0
    FLUSH
    # The GDT of ring 3's loads lies in a supervisor page.
    mov esi, offset gdt
    mov edi, LIN
    mov ecx, 0x80
    rep movsd
    sgdt [saved]
    mov word ptr [saved + 8], 0x1ff
    mov dword ptr [saved + 10], LIN
    lgdt [saved + 8]
    WORKS3 "mov eax, DATA3; mov fs, ax"
    # Half of it in a missing page: a supervisor read fault, even from ring 3.
    mov dword ptr [saved + 10], LIN + 0xf00
    mov esi, offset gdt
    mov edi, LIN + 0xf00
    mov ecx, 0x40
    rep movsd
    lgdt [saved + 8]
    TRY
    RING 3
    mov eax, 0x103
91: mov fs, ax
    int DONE
    CATCH 14, 0, "a descriptor in a missing page"
    IS "dword ptr [caught_cr2]", "LIN + 0x1000", "CR2 of a descriptor"
    IS "dword ptr [frame + F_EIP]", "offset 91b", "EIP of the load"
    lgdt [saved]
    # An interrupt whose stack is missing would be a double fault; a call gate's inner stack is a fault.
    GATE FREE, CODE1, "offset main", "CALL_GATE32 | DPL3"
    mov dword ptr [tss0 + 12], LIN + 0x1010
    FAULTS3 14, 2, "lcall FREE, 0"
    IS "dword ptr [caught_cr2]", "LIN + 0x100c", "CR2 of an inner stack"
    mov dword ptr [tss0 + 12], STACK1
    call standard
    ret

.bss
.balign 4
saved: .skip 64
index: .skip 4
