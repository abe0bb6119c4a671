# A Multiboot 1 kernel: tells COM1 what the boot loader has told it, then ends with the number of failed
# checks. With KLUDGE it is no ELF file but a flat one, whose header says where its parts go.

.intel_syntax noprefix

.set MAGIC, 0x1badb002
.set LOADED, 0x2badb002
.set COM1, 0x3f8
.set EXIT, 0xf4

# Offsets in the information structure.
.set INFO_FLAGS, 0
.set INFO_UPPER, 8
.set INFO_CMDLINE, 16
.set INFO_MODULES, 20
.set INFO_MODULE_LIST, 24
.set INFO_MAP_LENGTH, 44
.set INFO_MAP, 48

.ifdef KLUDGE
.set FLAGS, 0x10003
.else
.set FLAGS, 3
.endif

.text
.globl _start
head:
    .align 4
header:
    .long MAGIC, FLAGS, -(MAGIC + FLAGS)
.ifdef KLUDGE
    .long header, head, edata, end, _start
.endif

_start:
    lea esp, stack
    mov esi, ebx
    cmp eax, LOADED
    setne byte ptr failed
    # .bss is zero, although something else lay behind the file's content.
    cmp dword ptr zero, 0
    setne al
    add failed, al
    # Memory, command line, memory map: all there.
    mov eax, [esi + INFO_FLAGS]
    and eax, 0x45
    cmp eax, 0x45
    setne al
    add failed, al

    mov edi, [esi + INFO_CMDLINE]
    call line
    xor ebp, ebp
    test byte ptr [esi + INFO_FLAGS], 8
    cmovnz ebp, [esi + INFO_MODULES]
    mov ebx, [esi + INFO_MODULE_LIST]
modules:
    test ebp, ebp
    jz map
    mov edi, [ebx + 8]              # its command line
    call line
    mov edi, [ebx]                  # start, on a page
    test edi, 0xfff
    setnz al
    add failed, al
content:
    cmp edi, [ebx + 4]
    jae next
    mov al, [edi]
    call put
    inc edi
    jmp content
next:
    add ebx, 16
    dec ebp
    jmp modules

    # The usable memory from 1 MiB on in the map is what the upper memory says.
map:
    mov ebx, [esi + INFO_MAP]
    mov ecx, [esi + INFO_MAP_LENGTH]
    add ecx, ebx
entries:
    cmp ebx, ecx
    jae missing
    cmp dword ptr [ebx + 4], 0x100000
    je found
    add ebx, [ebx]
    add ebx, 4
    jmp entries
missing:
    inc byte ptr failed
    jmp done
found:
    mov eax, [ebx + 12]
    shr eax, 10
    cmp eax, [esi + INFO_UPPER]
    setne al
    add failed, al
done:
    movzx eax, byte ptr failed
    mov dx, EXIT
    out dx, eax
    hlt

# The text at EDI, and the end of a line.
line:
    mov al, [edi]
    test al, al
    jz 1f
    call put
    inc edi
    jmp line
1:  mov al, 10

# The byte in AL. Uses EAX and EDX.
put:
    mov ah, al
    mov dx, COM1 + 5
1:  in al, dx
    test al, 0x20
    jz 1b
    mov al, ah
    mov dx, COM1
    out dx, al
    ret

.data
failed: .byte 0
    .align 4
edata:

.bss
zero: .skip 4
    .skip 4096
stack:
end:
