# Code that changes while it runs: in the block that runs, in the next instruction, over pages, through an
# alias, by a bus master, by every kind of store.
.include "guest.inc"

.set DIRECTORY, 0x100000
.set TABLE0, 0x101000
.set TABLE1, 0x102000
.set FRAMES, 0x200000
.set LIN, 0x400000
.set MASTER, 0xe8               # the test board's bus master
.set MASTER_ID, 0x86

main:
    call next_instruction
    call loops
    call all_stores
    call sixteen
    call pages
    call master
    ret

next_instruction:
    # The very next instruction, in one block.
    mov byte ptr [1f + 1], 5
1:  mov eax, 1
    IS eax, 5, "the next instruction"
    mov dword ptr [1f + 1], 0x12345678
    nop
1:  mov eax, 1
    IS eax, 0x12345678, "the one after"
    # Its opcode, its length.
    mov byte ptr [1f], 0x41     # INC ECX for NOP
    xor ecx, ecx
1:  nop
    IS ecx, 1, "an opcode"
    mov dword ptr [1f], 0x90905040      # INC EAX; PUSH EAX; NOP; NOP for a MOV's first bytes
    mov byte ptr [1f + 4], 0x58 # POP EAX
    mov eax, 1
1:  mov ecx, 0x11223344
    IS eax, 2, "other instructions, other lengths"
    # A jump's target.
    mov byte ptr [1f + 1], 2f - 1f - 2
    xor eax, eax
1:  jmp 3f
    .byte 0
2:  inc eax
3:  IS eax, 1, "a jump's distance"
    # Behind us in the same block, seen the next time round.
    mov ecx, 2
    xor eax, eax
1:  add eax, 1
    mov byte ptr [1b + 2], 0x10
    loop 1b
    IS eax, 0x11, "an instruction behind"
    # Over all of what follows, by a repeated move that is itself inside.
    mov esi, offset other
    mov edi, offset 1f
    mov ecx, offset other_end - other
    rep movsb
1:  mov eax, 1
    nop
    nop
    IS eax, 0x77, "by REP MOVSB"
    # A function that is written, called, written again, many times.
    mov ecx, 1000
    xor edx, edx
1:  mov [patched + 1], ecx
    call patched
    add edx, eax
    loop 1b
    IS edx, 500500, "a function written a thousand times"
    # A REP MOVSB that writes over itself: what has been fetched goes on.
    ret
other:
    mov eax, 0x77
    nop
    nop
other_end:
.balign 64
patched:
    mov eax, 0
    ret

# A loop whose body changes with each turn; data and code in one line.
loops:
    mov dword ptr [counter], 0
    mov ecx, 100
    xor edx, edx
1:  inc dword ptr [counter]     # data beside code
    add edx, [counter]
    loop 1b
    jmp 2f
counter: .long 0
2:  IS edx, 5050, "data beside code"
    mov ecx, 5
    xor edx, edx
3:  inc byte ptr [4f + 2]
    nop
4:  add edx, 0                  # 1, 2, 3, 4, 5
    loop 3b
    IS edx, 15, "a loop that changes itself"
    # A jump into the middle of an instruction that was decoded otherwise.
    mov eax, 0
    mov ecx, offset 5f + 1
    jmp ecx
5:  mov eax, 0x90c3b040      # 40: INC EAX; B0 C3: MOV AL, C3; NOP
    nop
    cmp al, 0xc3
    sete al
    movzx eax, al
    IS eax, 1, "instructions that overlap"
    ret

# Every kind of store.
all_stores:
    .macro STORE insn, wanted
    mov dword ptr [target + 1], 0
    call target
    mov ebx, offset target + 1
    mov edi, ebx
    mov eax, \wanted
    mov ecx, \wanted
    \insn
    call target
    IS eax, "\wanted", "after \insn"
    .endm
    STORE "mov [ebx], eax", 0x1234567
    STORE "mov [ebx], al", 0x77
    STORE "mov [ebx], cx", 0x7777
    STORE "stosd", 0x1234567
    STORE "add [ebx], eax", 0x1234567
    STORE "xchg [ebx], eax", 0x1234567
    STORE "lock xadd [ebx], eax", 0x1234567
    STORE "xor eax, eax; cmpxchg [ebx], ecx", 0x1234567
    STORE "xor eax, eax; push ecx; pop dword ptr [ebx]", 0x1234567
    STORE "bts dword ptr [ebx], 5", 0x20
    STORE "inc dword ptr [ebx]", 1
    STORE "stc; setc [ebx]", 1
    STORE "stc; rcl dword ptr [ebx], 1", 1
    STORE "not byte ptr [ebx]", 0xff
    STORE "push ecx; fild dword ptr [esp]; pop ecx; fistp dword ptr [ebx]", 0x1234567
    STORE "movd mm0, ecx; movd [ebx], mm0; emms", 0x1234567
    STORE "mov [ebx + 1], ch", 0x1200
    STORE "mov esp_save, esp; lea esp, [ebx + 4]; push ecx; mov esp, esp_save", 0x1234567
    STORE "shld [ebx], ecx, 32 - 8; mov byte ptr [ebx], 0x45; mov dword ptr [ebx], ecx", 0x1234567
    ret
.balign 64
target:
    mov eax, 0
    ret
.purgem STORE

# In 16-bit code.
sixteen:
    ljmp CODE16, offset 1f
.code16
1:  mov byte ptr ds:[2f + 1], 9
2:  mov al, 1
    mov byte ptr ds:[3f + 2], 4
3:  add ax, 0x100
    .byte 0x66, 0xea
    .long 4f
    .word CODE0
.code32
4:  movzx eax, al
    IS eax, 9, "in 16-bit code"
    ret

pages:
    mov edi, TABLE0
    mov eax, 7
    mov ecx, 1024
1:  stosd
    add eax, 0x1000
    loop 1b
    mov dword ptr [DIRECTORY], TABLE0 + 7
    mov dword ptr [DIRECTORY + 4], TABLE1 + 7
    mov dword ptr [TABLE1], FRAMES + 7
    mov dword ptr [TABLE1 + 4], FRAMES + 0x1007
    mov dword ptr [TABLE1 + 8], FRAMES + 7          # an alias of the first
    mov dword ptr [TABLE1 + 12], FRAMES + 0x2007
    mov eax, DIRECTORY
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    jmp 1f
1:  # A function in a page; written through an alias.
    mov dword ptr [LIN], 0x000001b8     # MOV EAX, 1; RET
    mov word ptr [LIN + 4], 0xc300
    mov ebx, LIN
    call ebx
    IS eax, 1, "a function in a page"
    mov byte ptr [LIN + 0x2001], 2
    call ebx
    IS eax, 2, "written through an alias"
    mov byte ptr [FRAMES + 1], 3
    call ebx
    IS eax, 3, "written through another alias"
    mov ecx, LIN + 0x2000
    call ecx
    IS eax, 3, "called through the alias"
    mov byte ptr [LIN + 1], 4
    call ecx
    IS eax, 4, "written, called through the alias"
    # The alias writes the block that is running: MOV [EBX+..], in the page itself.
    mov edi, LIN + 0x100
    mov esi, offset self_writer
    mov ecx, offset self_writer_end - self_writer
    rep movsb
    mov ebx, LIN + 0x2100 + (offset self_target - self_writer) + 1
    mov eax, LIN + 0x100
    call eax
    IS eax, 0x55, "a block that writes itself through an alias"
    # An instruction over two pages, whose second part is written; whose first is.
    mov word ptr [LIN + 0xffe], 0x11b8
    mov dword ptr [LIN + 0x1000], 0xc3443322
    mov ebx, LIN + 0xffe
    call ebx
    IS eax, 0x44332211, "an instruction over two pages"
    mov byte ptr [LIN + 0x1002], 0x99
    call ebx
    IS eax, 0x99332211, "its second part written"
    mov byte ptr [LIN + 0xfff], 0x88
    call ebx
    IS eax, 0x99332288, "its first part written"
    mov byte ptr [FRAMES + 0x1000], 0x77
    call ebx
    IS eax, 0x99337788, "its second part written through an alias"
    # A write over both pages.
    mov dword ptr [LIN + 0xfff], 0x01020304
    call ebx
    IS eax, 0x01020304, "written over both pages"
    # The page is mapped elsewhere and back.
    mov dword ptr [FRAMES + 0x2000], 0x0000aab8
    mov word ptr [FRAMES + 0x2004], 0xc300
    mov ecx, 50
    xor edx, edx
1:  mov dword ptr [TABLE1], FRAMES + 0x2007
    invlpg [LIN]
    mov ebx, LIN
    call ebx
    add edx, eax
    mov dword ptr [TABLE1], FRAMES + 7
    mov eax, cr3
    mov cr3, eax
    call ebx
    add edx, eax
    loop 1b
    IS edx, "50 * (0xaa + 4)", "a page mapped back and forth"
    # A jump between two pages, the target remapped.
    mov byte ptr [LIN + 0x40], 0xe9     # JMP to LIN + 1040h
    mov dword ptr [LIN + 0x41], 0x1000 - 5
    mov dword ptr [FRAMES + 0x1040], 0x0000bbb8
    mov word ptr [FRAMES + 0x1044], 0xc300
    mov dword ptr [FRAMES + 0x2040], 0x0000ccb8
    mov word ptr [FRAMES + 0x2044], 0xc300
    mov ecx, 50
    xor edx, edx
    mov ebx, LIN + 0x40
1:  mov dword ptr [TABLE1 + 4], FRAMES + 0x2007
    invlpg [LIN + 0x1000]
    call ebx
    add edx, eax
    mov dword ptr [TABLE1 + 4], FRAMES + 0x1007
    invlpg [LIN + 0x1000]
    call ebx
    add edx, eax
    loop 1b
    IS edx, "50 * (0xbb + 0xcc)", "a jump into a page mapped back and forth"
    # REP STOSB over code that was run, in large.
    mov edi, LIN
    mov ecx, 0x1000
    mov al, 0x90
    rep stosb
    mov dword ptr [LIN + 0x1000], 0xc3c3c3c3
    mov eax, 0x1111
    mov ebx, LIN
    call ebx
    IS eax, 0x1111, "a page of NOPs over old code"
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    jmp 1f
1:  ret
# EBX: where to write 55h, the low byte of the second MOV's operand.
self_writer:
    mov eax, 0
    mov byte ptr [ebx], 0x55
self_target:
    mov eax, 0
    ret
self_writer_end:

# A bus master writes memory, past the processor.
master:
    in al, MASTER
    cmp al, MASTER_ID
    jne 2f
    mov dword ptr [command], offset dma_target + 1
    mov dword ptr [command + 4], 1
    mov byte ptr [command + 8], 0x66
    call dma_target
    IS eax, 1, "before"
    mov eax, offset command
    out MASTER, eax
    call dma_target
    IS eax, 0x66, "code written by a bus master"
    # The instruction after the OUT.
    mov dword ptr [command], offset 1f + 1
    mov eax, offset command
    out MASTER, eax
1:  mov eax, 1
    IS eax, 0x66, "the next instruction written by a bus master"
    # In a loop.
    mov ecx, 100
    xor edx, edx
    mov dword ptr [command], offset dma_target + 1
1:  mov [command + 8], cl
    mov eax, offset command
    out MASTER, eax
    call dma_target
    add edx, eax
    loop 1b
    IS edx, 5050, "code written by a bus master a hundred times"
2:  ret
.balign 64
dma_target:
    mov eax, 1
    ret

.bss
.balign 4
command: .skip 16
esp_save: .skip 4
