# PAE paging: three levels, 2 MiB pages, reserved bits, the page-directory pointers.
.include "guest.inc"

.set POINTERS, 0x100000
.set DIRECTORY, 0x101000
.set TABLE1, 0x102000           # for 200000h-3FFFFFh of the test region's 2 MiB at 400000h
.set DIRECTORY1, 0x103000       # the second GiB
.set LIN, 0x400000
.set PDE, DIRECTORY + 16        # of LIN
.set PTE0, TABLE1
.set FRAMES, 0x200000
.set P, 1
.set RW, 2
.set US, 4
.set A, 0x20
.set D, 0x40
.set PS, 0x80
.set ALL, 7
.set PAE, 0x20
.set PAGING, 0x80000000

.macro FLUSH
    mov eax, cr3
    mov cr3, eax
.endm

main:
    mov dword ptr [POINTERS], DIRECTORY + P
    mov dword ptr [DIRECTORY], ALL + PS             # the first 4 MiB, one to one
    mov dword ptr [DIRECTORY + 8], 0x200000 + ALL + PS
    mov dword ptr [PDE], TABLE1 + ALL
    mov dword ptr [PTE0], FRAMES + ALL
    mov dword ptr [PTE0 + 8], FRAMES + 0x1000 + ALL
    mov eax, PAE
    mov cr4, eax
    mov eax, POINTERS
    mov cr3, eax
    mov eax, cr0
    or eax, PAGING
    mov cr0, eax
    jmp 1f
1:  # Translation, accessed and dirty.
    mov dword ptr [FRAMES + 4], 0x1111
    IS "dword ptr [LIN + 4]", 0x1111, "a 4 KiB page"
    IS "dword ptr [PTE0]", FRAMES+ALL+A, "A"
    IS "dword ptr [PDE]", TABLE1+ALL+A, "A of the directory"
    mov dword ptr [LIN + 4], 0x2222
    IS "dword ptr [PTE0]", FRAMES+ALL+A+D, "D"
    mov dword ptr [DIRECTORY + 24], FRAMES + ALL + PS
    mov eax, [0x600004]
    IS eax, 0x2222, "a 2 MiB page"
    IS "dword ptr [DIRECTORY + 24]", FRAMES+ALL+PS+A, "A of a 2 MiB page"
    mov dword ptr [0x600004], 0x3333
    IS "dword ptr [DIRECTORY + 24]", FRAMES+ALL+PS+A+D, "D of a 2 MiB page"
    IS "dword ptr [LIN + 4]", 0x3333, "an alias"
    mov dword ptr [DIRECTORY + 24], ALL + PS
    mov dword ptr [0x104000], 0x7777
    invlpg [0x612345]
    IS "dword ptr [0x704000]", 0x7777, "INVLPG of a 2 MiB page"
    # Rights.
    mov dword ptr [PTE0], FRAMES + P + US
    FLUSH
    FAULTS3 14, 7, "mov [LIN], eax"
    WORKS "mov [LIN], eax"
    mov dword ptr [PTE0], FRAMES + P + RW
    FLUSH
    FAULTS3 14, 5, "mov eax, [LIN]"
    mov dword ptr [PTE0], FRAMES + ALL
    mov dword ptr [PDE], TABLE1 + P + US
    FLUSH
    FAULTS3 14, 7, "mov [LIN], eax"
    mov eax, cr0
    or eax, 0x10000
    mov cr0, eax
    FAULTS 14, 3, "mov [LIN], eax"
    mov eax, cr0
    and eax, ~0x10000
    mov cr0, eax
    mov dword ptr [PDE], TABLE1 + ALL
    FLUSH
    # Nothing there: at each level.
    mov dword ptr [PTE0], 0
    FLUSH
    FAULTS 14, 0, "mov eax, [LIN]"
    FAULTS3 14, 6, "mov [LIN], eax"
    mov dword ptr [PDE], 0
    FLUSH
    FAULTS 14, 2, "mov [LIN], eax"
    FAULTS 14, 0, "mov eax, [0x40000000]"
    IS "dword ptr [caught_cr2]", 0x40000000, "CR2 of a missing pointer"
    # Reserved bits: 63 without no-execute, and those above the physical addresses.
    mov dword ptr [PDE], TABLE1 + ALL
    mov dword ptr [PTE0], FRAMES + ALL
    mov dword ptr [PTE0 + 4], 0x80000000
    FLUSH
    NOT_ON_TCG 1f               # it leaves P out of the error code, and has more address bits
    FAULTS 14, 9, "mov eax, [LIN]"
    FAULTS3 14, 15, "mov [LIN], eax"
    mov dword ptr [PTE0 + 4], 0x10
    FLUSH
    FAULTS 14, 9, "mov eax, [LIN]"
    mov dword ptr [PTE0 + 4], 0
    mov dword ptr [PDE + 4], 0x80000000
    FLUSH
    FAULTS 14, 11, "mov [LIN], eax"
    mov dword ptr [PDE + 4], 0
    mov dword ptr [DIRECTORY + 24], FRAMES + 0x2000 + ALL + PS
    FLUSH
    FAULTS 14, 9, "mov eax, [0x600000]"
    mov dword ptr [DIRECTORY + 24], 0
    FLUSH
    # The pointers are loaded with CR3, not looked up (QEMU looks them up, and checks nothing).
    mov dword ptr [POINTERS + 8], DIRECTORY1 + P
    mov dword ptr [DIRECTORY1], FRAMES + ALL + PS
    FAULTS 14, 0, "mov eax, [0x40000000]"
    FLUSH
    WORKS "mov eax, [0x40000000]"
    mov dword ptr [POINTERS + 8], 0
    WORKS "mov eax, [0x40000000]"
    # Reserved bits in a present one: #GP for the load.
    mov dword ptr [POINTERS + 8], DIRECTORY1 + ALL
    mov eax, cr3
    FAULTS 13, 0, "mov cr3, eax"
    mov dword ptr [POINTERS + 8], DIRECTORY1 + P
    mov dword ptr [POINTERS + 12], 0x10
    mov eax, cr3
    FAULTS 13, 0, "mov cr3, eax"
    mov dword ptr [POINTERS + 8], 0xfffffffe        # not present: anything goes
    mov eax, cr3
    WORKS "mov cr3, eax"
    # ... and when PG is set.
    mov eax, cr0
    and eax, ~PAGING
    mov cr0, eax
    jmp 2f
2:  mov dword ptr [POINTERS + 8], DIRECTORY1 + ALL
    mov dword ptr [POINTERS + 12], 0
    mov eax, cr0
    or eax, PAGING
    FAULTS 13, 0, "mov cr0, eax"
    mov dword ptr [POINTERS + 8], 0
    mov eax, cr0
    or eax, PAGING
    mov cr0, eax
    jmp 1f
1:  mov dword ptr [PTE0 + 4], 0
    # CR3 is aligned to 32 bytes.
    mov esi, POINTERS
    mov edi, POINTERS + 0x20
    mov ecx, 8
    rep movsd
    mov eax, POINTERS + 0x20
    mov cr3, eax
    IS "dword ptr [LIN + 4]", 0x3333, "CR3 aligned to 32 bytes"
    mov eax, cr0
    and eax, ~PAGING
    mov cr0, eax
    jmp 1f
1:  xor eax, eax
    mov cr4, eax
    ret
