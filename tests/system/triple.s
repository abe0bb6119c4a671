# A fault, whose handler faults, whose handler faults: the processor shuts down.
.include "guest.inc"

main:
    mov word ptr [idtr], 0
    lidt [idtr]
    ud2
    mov dword ptr [failures], 1
    ret
