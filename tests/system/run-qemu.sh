#!/bin/sh
# Builds a guest and runs it under QEMU: run-qemu.sh NAME. QEMU ends with status 1 for "all passed".
set -e
cd "$(dirname "$0")"
out=${TMPDIR:-/tmp}/env86-guest-$1
as --32 -I . -o "$out.o" "$1.s"
ld --no-warn-rwx-segments -m elf_i386 -T guest.ld -o "$out.elf" "$out.o"
objcopy -O binary -j .image -j .reset "$out.elf" "$out.bin"
timeout 60 qemu-system-i386 -M pc -accel tcg -cpu "${CPU:-qemu32,-apic}" -m 16 -bios "$out.bin" -display none -nodefaults \
    -serial null -debugcon stdio -device isa-debug-exit,iobase=0xf4,iosize=1 -no-reboot || [ $? -eq 1 ]
